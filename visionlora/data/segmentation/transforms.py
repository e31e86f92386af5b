"""From an RGB image and its class mask to a segmenter's input and target, with and without augmentation."""

import cv2
import numpy as np
import torch

from visionlora.data.annotations.masks import between_centres
from visionlora.data.augmentations import Augmentation, photometric_chain
from visionlora.data.geometry import Moves, View, random_view, show, whole_view
from visionlora.data.images import Triple
from visionlora.data.segmentation.class_map import IGNORE
from visionlora.errors import InputError

_MOVES = {
    "none": Moves(zoom=(1.0, 1.0), mirror=False),
    "light": Moves(zoom=(0.8, 1.25)),
    "strong": Moves(zoom=(0.5, 2.0), tilt=5, shear=3),
    "surveillance": Moves(zoom=(0.65, 1.5), tilt=3),  # a fixed camera hardly tilts
}

_NO_BOXES = np.zeros((0, 4))


class SegmentationEvalTransform:
    """(H, W, 3) uint8 RGB and its mask -> (3, h, w) float32, normalised, and the mask at its own size.

    The whole image, its longest side resized to ``size`` with averaging (PIL, bilinear). Scores are of the image's own
    pixels, so the mask is left as it is: (H, W) int64.

    Args:
        size: longest side in pixels. Raises InputError below 2.
        mean, std: per channel of values in 0 to 1, as ``Preprocessing`` has them.
    """

    def __init__(self, size: int, mean: Triple, std: Triple) -> None:
        _refuse_small("longest side", size)
        self.size, self.mean, self.std = size, mean, std

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return whole_image(image, self.size, self.mean, self.std), torch.from_numpy(mask.astype(np.int64))


class SegmentationTrainTransform:
    """(H, W, 3) uint8 RGB, its mask and a seed >= 0 -> (3, h, w) float32, normalised, and (h, w) int64.

    A pure function of the three, as ``Augmentation`` is. First the view changes (zoom, place, tilt, mirror), for the
    image with averaging and for the mask by the nearest pixel; then light, weather and sensor (``photometric_chain``).
    What lies outside the image is ``IGNORE``.

    Args:
        size: longest side of the whole image in pixels, at zoom 1. Raises InputError below 2.
        mean, std: per channel of values in 0 to 1, as ``Preprocessing`` has them.
        strength: one of ``augmentations.STRENGTHS``. Raises InputError for any other word.
        crop: height and width of a window at a random place; by default all of the image's frame.
    """

    def __init__(
        self, size: int, mean: Triple, std: Triple, strength: str = "light", crop: tuple[int, int] | None = None
    ) -> None:
        _refuse_small("longest side", size)
        if crop is not None:
            _refuse_small("crop", min(crop))
        self.size, self.mean, self.std, self.strength, self.crop = size, mean, std, strength, crop
        self._augment = Augmentation(photometric_chain(strength))

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = image.shape[:2]
        # not the numbers that the photometric chain draws
        generator = np.random.default_rng([seed, 1])
        window = None if self.crop is None else (self.crop[1], self.crop[0])
        view = random_view(width, height, self.size, _NO_BOXES, _MOVES[self.strength], generator, window)
        shown = show(image, view)
        if self.strength != "none":
            shown = self._augment(shown, seed)
        target = torch.from_numpy(show_mask(mask, view).astype(np.int64))
        return _normalised(shown, self.mean, self.std), target


def whole_image(image: np.ndarray, size: int, mean: Triple, std: Triple) -> torch.Tensor:
    """(H, W, 3) uint8 RGB -> (3, h, w) float32, normalised, as ``SegmentationEvalTransform`` does it."""
    return _normalised(show(image, whole_view(image.shape[1], image.shape[0], size)), mean, std)


def show_mask(mask: np.ndarray, view: View) -> np.ndarray:
    """(H, W) uint8 -> (view.height, view.width): at each pixel's centre the nearest; ``IGNORE`` beside the image."""
    if not view.upright:
        return cv2.warpAffine(
            mask,
            between_centres(view.matrix),
            (view.width, view.height),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=IGNORE,
        )
    (scale_x, _, left), (_, scale_y, top) = view.matrix.tolist()
    columns, rows = _sources(view.width, scale_x, left), _sources(view.height, scale_y, top)
    inside_x, inside_y = (columns >= 0) & (columns < mask.shape[1]), (rows >= 0) & (rows < mask.shape[0])
    shown = np.full((view.height, view.width), IGNORE, np.uint8)
    shown[np.ix_(inside_y, inside_x)] = mask[np.ix_(rows[inside_y], columns[inside_x])]
    return shown


def _sources(length: int, scale: float, offset: float) -> np.ndarray:
    """(length,) pixels of the image along one side, below the centres of those of the view."""
    return np.floor((np.arange(length) + 0.5 - offset) / scale).astype(np.int64)


def _normalised(image: np.ndarray, mean: Triple, std: Triple) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32."""
    tensor = torch.from_numpy(image).permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
    return tensor.sub_(torch.tensor(mean).view(3, 1, 1)).div_(torch.tensor(std).view(3, 1, 1))


def _refuse_small(what: str, size: int) -> None:
    if size < 2:
        raise InputError(f"the images' {what} is to be {size} px; give a larger size")
