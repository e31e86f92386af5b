"""A segmenter's work on whole images: what it takes of them, and a class for each of their pixels."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visionlora.data.classification.transforms import Triple
from visionlora.data.segmentation.transforms import whole_image
from visionlora.errors import InputError
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
        if not 0 <= self.window_overlap < (self.window or 1):
            of = f"windows of {self.window} px" if self.window else "there are no windows that"
            raise InputError(f"{of} can't overlap by {self.window_overlap} px; change window or window_overlap")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SegmenterInput":
        """The inverse of `to_dict`. Raises InputError if a value is missing or unknown."""
        try:
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"preprocessing: missing or unknown values ({error}); save the model again") from error


def over_windows(model: nn.Module, shown: SegmenterInput) -> Callable[[Tensor], Tensor]:
    """(N, 3, H, W) -> (N, classes, H, W) logits of a model as `shown` says: of the whole, or of windows, averaged."""
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
