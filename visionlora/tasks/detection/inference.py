"""A detector's work on whole images: what it takes of them, and its outputs in their pixels."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.detection.mapping import boxes_to_original, paste_masks
from visionlora.data.detection.tile_joining import Detections, join_tiles
from visionlora.data.detection.tiling import cut
from visionlora.data.detection.transforms import DetectionEvalTransform
from visionlora.data.input_size import check_whole
from visionlora.data.windows import Window, windows
from visionlora.errors import InputError, did_you_mean, some
from visionlora.models.detector import SMALLEST, Detector
from visionlora.tasks.models import Trained

Model = Callable[[list[Tensor]], list[dict[str, Tensor]]]
"""In eval mode: images (3, H, W) in 0 to 1 -> what is found in each of them."""


@dataclass(frozen=True)
class DetectorInput:
    """How images reach a detector.

    Attributes:
        size: pixels of the longest side of what it sees.
        tile: side in pixels of the windows that an image is cut into; None for whole images.
        tile_overlap: pixels that neighbouring windows share.
    """

    size: int
    tile: int | None = None
    tile_overlap: int = 0

    def __post_init__(self) -> None:
        check_whole("size", self.size, 1)
        if self.tile is not None:
            check_whole("tile", self.tile, 1)
        check_whole("tile_overlap", self.tile_overlap, 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DetectorInput":
        """The inverse of ``to_dict``. Raises InputError if a value is missing or unknown."""
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"preprocessing: missing or unknown values ({error}); save the model again") from error

    def windows(self, width: int, height: int) -> list[Window]:
        """What is shown of an image, in its pixels."""
        if self.tile is None:
            return [(0, 0, width, height)]
        return windows(width, height, self.tile, self.tile_overlap)

    def samples(self, data: AnnotatedImages) -> AnnotatedImages:
        """The images, or the tiles that they are cut into."""
        return data if self.tile is None else cut(data, self.tile, self.tile_overlap)


TrainedDetector = Trained[Detector, DetectorInput]

FALLBACK = 0.5
"""Threshold of a class for which the run suggests none: it found no object of it."""


def thresholds_of(
    trained: TrainedDetector, min_score: float | None = None, own: Mapping[str, float] | None = None
) -> list[float]:
    """The score from which on a detection is kept, per class: its ``own``, ``min_score``, or what the run suggests.

    Raises:
        InputError: a class of ``own`` is none of the model's.
    """
    own = own or {}
    if unknown := sorted(own.keys() - set(trained.classes)):
        hint = did_you_mean(unknown[0], trained.classes) or f" ({some(trained.classes)})"
        raise InputError(f"'{unknown[0]}' is no class of {trained.path}{hint}")
    suggested = trained.about.get("thresholds", {})
    others = {name: suggested.get(name, FALLBACK) if min_score is None else min_score for name in trained.classes}
    return [own.get(name, others[name]) for name in trained.classes]


def predict_detections(
    trained: TrainedDetector, images: Sequence[np.ndarray], thresholds: Sequence[float], device: torch.device
) -> list[Detections]:
    """Detect in (H, W, 3) uint8 RGB images; see ``detect``. The model must be on the device."""
    return [keep(found, thresholds) for found in detect(trained.built, images, trained.preprocessing, device)]


def padded(width: int, height: int) -> tuple[int, int]:
    """Width and height that a detector pads an image to which it sees alone."""
    return -(-width // SMALLEST) * SMALLEST, -(-height // SMALLEST) * SMALLEST


def as_alone(model: Model) -> Model:
    """The model, but that each image of a list gets what it gets alone.

    A detector pads images to the largest of its list, and sees the padding. So it gets those of one padded size
    together, and no others. The images must be of the size that it looks at, as ``DetectionEvalTransform`` gives them.
    """

    def run(images: list[Tensor]) -> list[dict[str, Tensor]]:
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[padded(image.shape[2], image.shape[1])].append(index)
        found: dict[int, dict[str, Tensor]] = {}
        for group in groups.values():
            found |= zip(group, model([images[index] for index in group]), strict=True)
        return [found[index] for index in range(len(images))]

    return run


@torch.no_grad()
def detect(
    detector: Detector, images: Sequence[np.ndarray], shown: DetectorInput, device: torch.device, batch_size: int = 8
) -> list[Detections]:
    """Detect in whole images.

    Args:
        detector: its model is plain, in eval mode and on the device.
        images: (H, W, 3) uint8 RGB, of any sizes.
        shown: how they reach the model.
        batch_size: images or tiles at a time.

    Returns:
        per image, on the CPU: ``boxes`` (N, 4) in its pixels, ``labels`` (N,) counting the classes, ``scores`` (N,),
        and ``masks`` (N, H, W) bool where the detector makes masks.
    """
    places = [shown.windows(image.shape[1], image.shape[0]) for image in images]
    parts = _detected(detector, images, places, shown, device, batch_size)
    # An image's parts are joined as soon as they are there: soft masks of many tiles would be gigabytes.
    return [
        joined(list(islice(parts, len(own))), own, image.shape[1], image.shape[0])
        for image, own in zip(images, places, strict=True)
    ]


def _detected(
    detector: Detector,
    images: Sequence[np.ndarray],
    places: Sequence[Sequence[Window]],
    shown: DetectorInput,
    device: torch.device,
    batch_size: int,
) -> Iterator[Detections]:
    """What is found in each window of each image, in turn."""
    transform, model = DetectionEvalTransform(shown.size), as_alone(detector.model)
    all_windows = [(image, window) for image, own in zip(images, places, strict=True) for window in own]
    for start in range(0, len(all_windows), batch_size):
        batch = all_windows[start : start + batch_size]
        tensors = [transform(np.ascontiguousarray(image[y1:y2, x1:x2]), ())[0] for image, (x1, y1, x2, y2) in batch]
        outputs = detector.to_classes(model([tensor.to(device) for tensor in tensors]))
        for output, tensor, (_, window) in zip(outputs, tensors, batch, strict=True):
            yield to_image(output, (tensor.shape[2], tensor.shape[1]), window)


def to_image(output: dict[str, Tensor], size: tuple[int, int], window: Window) -> Detections:
    """A detector's output for a window of an image, on the CPU: boxes in the image's pixels, masks (N, h, w) as given.

    ``size`` is (width, height) of what the detector saw.
    """
    plain = {key: value.detach().cpu() for key, value in output.items()}
    plain["boxes"], plain["scores"] = plain["boxes"].float(), plain["scores"].float()
    plain["boxes"] = boxes_to_original(plain["boxes"], *size, window)
    if "masks" in plain:
        plain["masks"] = plain["masks"][:, 0]
    return plain


def joined(parts: Sequence[Detections], places: Sequence[Window], width: int, height: int) -> Detections:
    """The detections in an image from those in its windows; masks become (N, height, width) bool."""
    if len(parts) > 1:
        return join_tiles(parts, places, width, height)
    found = dict(parts[0])
    if "masks" in found:
        found["masks"] = paste_masks(found["masks"], places[0], width, height)
    return found


def large_enough(found: Detections, side: float) -> Detections:
    """The detections whose box has at least the area of a square of this side, in pixels."""
    boxes = found["boxes"]
    wanted = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) >= side**2
    return {key: value[wanted] for key, value in found.items()}


def keep(found: Detections, thresholds: Sequence[float]) -> Detections:
    """The detections whose score is at least the threshold of their class."""
    wanted = found["scores"] >= torch.tensor(thresholds)[found["labels"]]
    return {key: value[wanted] for key, value in found.items()}
