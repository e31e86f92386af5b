"""A segmenter's work on whole images: what it takes of them, and a class for each of their pixels."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.geometry import whole_view
from visionlora.data.images import Triple
from visionlora.data.input_size import check_triple, check_whole
from visionlora.data.loading import batches, make_loader
from visionlora.data.segmentation.dataset import SegmentationDataset, collate_eval
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.data.segmentation.transforms import SegmentationEvalTransform, whole_image
from visionlora.errors import InputError
from visionlora.models.segmenter import Segmenter
from visionlora.tasks.drawing import Color, class_color
from visionlora.tasks.models import Trained
from visionlora.tasks.segmentation.windows import classes_at, predict_windows


@dataclass(frozen=True)
class SegmenterInput:
    """How images reach a segmenter.

    Attributes:
        size: pixels of the longest side that an image is resized to.
        mean, std: per RGB channel of values in 0 to 1.
        window: side in pixels of the windows that it sees of the resized image; None for all at once.
        window_overlap: pixels that neighbouring windows share, at least.

    Raises:
        InputError: windows can't overlap so.
    """

    size: int
    mean: Triple
    std: Triple
    window: int | None = None
    window_overlap: int = 0

    def __post_init__(self) -> None:
        check_whole("size", self.size, 1)
        check_triple("mean", self.mean)
        check_triple("std", self.std)
        if min(self.std) <= 0:
            raise InputError(f"preprocessing: std is {self.std}; give three numbers above 0")
        if self.window is not None:
            check_whole("window", self.window, 1)
        check_whole("window_overlap", self.window_overlap, 0)
        if not 0 <= self.window_overlap < (self.window or 1):
            of = f"windows of {self.window} px" if self.window else "there are no windows that"
            raise InputError(f"{of} can't overlap by {self.window_overlap} px; change window or window_overlap")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SegmenterInput":
        """The inverse of ``to_dict``. Raises InputError if a value is missing or unknown."""
        try:
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"preprocessing: missing or unknown values ({error}); save the model again") from error


def over_windows(model: nn.Module, shown: SegmenterInput) -> Callable[[Tensor], Tensor]:
    """(N, 3, H, W) -> (N, classes, H, W) logits of a model as ``shown`` says: of the whole, or of windows, averaged."""
    side = shown.window
    if side is None:
        return model
    return lambda images: predict_windows(model, images, side, shown.window_overlap)


@torch.no_grad()
def segment(
    model: nn.Module, images: Sequence[np.ndarray], shown: SegmenterInput, device: torch.device, batch_size: int = 8
) -> list[np.ndarray]:
    """The class of each pixel of whole images.

    Args:
        model: plain, in eval mode and on the device.
        images: (H, W, 3) uint8 RGB, of any sizes; neighbours of one size are seen together.
        shown: how they reach the model.
        batch_size: images at a time.

    Returns:
        per image (H, W) uint8.
    """
    predictor, found = over_windows(model, shown), []
    for _, group in groupby(images, key=lambda image: image.shape):
        same = list(group)
        for start in range(0, len(same), batch_size):
            batch = same[start : start + batch_size]
            tensors = torch.stack([whole_image(image, shown.size, shown.mean, shown.std) for image in batch])
            for logits, image in zip(predictor(tensors.to(device)), batch, strict=True):
                labels = classes_at(logits, (image.shape[0], image.shape[1]))
                found.append(labels.to(torch.uint8).cpu().numpy())
    return found


TrainedSegmenter = Trained[Segmenter, SegmenterInput]


def values_of(trained: TrainedSegmenter) -> list[int]:
    """The classes' values in the index masks that were trained on."""
    return [int(value) for value in trained.about.get("values", range(len(trained.classes)))]


def colors_of(trained: TrainedSegmenter) -> list[Color]:
    """The classes' colours, of the data that was trained on if they have some."""
    given = trained.about.get("colors") or [class_color(label) for label in range(len(trained.classes))]
    return [(int(red), int(green), int(blue)) for red, green, blue in given]


def predict_masks(trained: TrainedSegmenter, images: Sequence[np.ndarray], device: torch.device) -> list[np.ndarray]:
    """Classes of the pixels of (H, W, 3) uint8 RGB images; see ``segment``. The model must be there."""
    return segment(trained.model, images, trained.preprocessing, device)


def evaluation_set(data: SegmentedImages, shown: SegmenterInput) -> SegmentationDataset:
    """The samples that a segmenter is evaluated on; their targets have the sizes of the files."""
    return SegmentationDataset(data, SegmentationEvalTransform(shown.size, shown.mean, shown.std), seed=0)


def evaluation_loader(dataset: SegmentationDataset, batch_size: int, workers: int) -> DataLoader[Any]:
    """All samples of a dataset, in batches of one shape: what is beside an image would be seen by the model."""
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(dataset.data.images):
        view = whole_view(image.width, image.height, dataset.transform.size)
        by_shape.setdefault((view.width, view.height), []).append(index)
    keys = [batch for group in by_shape.values() for batch in batches(group, 0, batch_size, drop_last=False)]
    return make_loader(dataset, keys, workers, collate_eval)


class LogitsOfDict(nn.Module):
    """A segmenter as torchvision makes it, with its logits alone: (N, 3, H, W) -> (N, classes, H, W)."""

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.segmenter(images)["out"]
        return logits
