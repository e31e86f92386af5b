"""From an RGB image and its objects to a detector's input and target, with and without augmentation."""

from collections.abc import Sequence

import numpy as np
import torch

from visionlora.data.annotations.annotated import LabelledObject
from visionlora.data.augmentations import Augmentation, photometric_chain
from visionlora.data.detection.targets import Target, make_target
from visionlora.data.geometry import Moves, View, random_view, show, whole_view
from visionlora.errors import InputError

_MOVES = {
    "light": Moves(zoom=(0.8, 1.25)),
    "strong": Moves(zoom=(0.5, 2.0), tilt=5, shear=3),
    "surveillance": Moves(zoom=(0.65, 1.5), tilt=3),  # a fixed camera hardly tilts
}


class DetectionEvalTransform:
    """(H, W, 3) uint8 RGB and its objects -> (3, h, w) float32 in 0 to 1, and the target.

    The whole image, its longest side resized to ``size`` with averaging (PIL, bilinear). No object is left out.
    The result can be pickled.

    Args:
        size: longest side in pixels. Raises InputError below 2.
        masks: whether targets hold masks.
    """

    def __init__(self, size: int, masks: bool = False) -> None:
        _refuse_no_size(size)
        self.size = size
        self.masks = masks

    def __call__(self, image: np.ndarray, objects: Sequence[LabelledObject]) -> tuple[torch.Tensor, Target]:
        view = whole_view(image.shape[1], image.shape[0], self.size)
        return _to_tensor(show(image, view)), make_target(objects, view, self.masks, train=False)


class DetectionTrainTransform:
    """(H, W, 3) uint8 RGB, its objects and a seed >= 0 -> (3, h, w) float32 in 0 to 1, and the target.

    A pure function of the three, as ``Augmentation`` is. The image has the size that it has in evaluation. First
    the view changes (zoom, place, tilt, mirror), then light, weather and sensor (``photometric_chain``). Zooming out
    and tilting show grey beside the image.

    Geometry isn't left to albumentations, whose masks would have to be laid out in the size of the file, whose
    crops alias, and which compares an object only with what the step before left of it.

    Args:
        size: longest side in pixels. Raises InputError below 2.
        strength: one of ``augmentations.STRENGTHS``. Raises InputError for any other word.
        masks: whether targets hold masks.
    """

    def __init__(self, size: int, strength: str = "light", masks: bool = False) -> None:
        _refuse_no_size(size)
        self.size = size
        self.strength = strength
        self.masks = masks
        self._augment = Augmentation(photometric_chain(strength))

    def __call__(self, image: np.ndarray, objects: Sequence[LabelledObject], seed: int) -> tuple[torch.Tensor, Target]:
        view = self._view(image, objects, seed)
        shown = show(image, view)
        if self.strength != "none":
            shown = self._augment(shown, seed)
        return _to_tensor(shown), make_target(objects, view, self.masks, train=True)

    def _view(self, image: np.ndarray, objects: Sequence[LabelledObject], seed: int) -> View:
        height, width = image.shape[:2]
        if self.strength == "none":
            return whole_view(width, height, self.size)
        boxes = np.array([thing.box for thing in objects if not thing.crowd], np.float64).reshape(-1, 4)
        # not the numbers that the photometric chain draws
        generator = np.random.default_rng([seed, 1])
        return random_view(width, height, self.size, boxes, _MOVES[self.strength], generator)


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in 0 to 1."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous().to(torch.float32).div_(255)


def _refuse_no_size(size: int) -> None:
    if size < 2:
        raise InputError(f"the images' longest side is to be {size} px; give a larger size")
