"""What training images are put through: albumentations, behind a pure function of image and seed.

The only file that knows albumentations.
"""

import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from visionlora.errors import InputError, did_you_mean

# importing albumentations would ask the network for its newest version
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A
import cv2

STRENGTHS = ("none", "light", "strong", "surveillance")

Chain = Sequence[A.BasicTransform | A.BaseCompose]


class Augmentation:
    """(H, W, 3) uint8 RGB and a seed >= 0 -> uint8 RGB, in the size that the chain gives.

    A pure function of the two: nothing carries over from call to call, and no global random state is read or
    changed. It can be pickled, and copies in other processes agree; one copy is not for several threads.
    """

    def __init__(self, chain: Chain) -> None:
        self._compose = A.Compose(list(chain))

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        # Not set_random_seed: it gives every transform a generator of its own with one and the same seed,
        # so that all flips, jitters and blurs draw the same numbers.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return self._compose(image=image)["image"]


def classification_chain(
    strength: str, height: int, width: int, resample: Image.Resampling, fill: tuple[int, int, int]
) -> Chain:
    """A crop of the size given, what else moves pixels, then ``photometric_chain``; ``fill`` colours the holes."""
    if strength == "none":
        return []
    crop = _RandomCrop(size=(height, width), scale=(0.25 if strength == "strong" else 0.5, 1.0))
    crop.resample = resample
    chain = [crop, A.HorizontalFlip(p=0.5)]
    if strength != "strong":
        return [*chain, *photometric_chain(strength)]
    holes = A.CoarseDropout(
        num_holes_range=(1, 4), hole_height_range=(0.1, 0.3), hole_width_range=(0.1, 0.3), fill=fill, p=0.4
    )
    affine = A.Affine(rotate=(-15, 15), shear=(-8, 8), border_mode=cv2.BORDER_REFLECT_101, p=0.5)
    return [*chain, affine, *photometric_chain(strength), holes]


def photometric_chain(strength: str) -> Chain:
    """What changes colours and sharpness, and moves nothing. Raises InputError for a word not in ``STRENGTHS``."""
    refuse_unknown_strength(strength)
    if strength == "none":
        return []
    if strength == "light":
        return [_colour(0.2, p=0.8)]
    if strength == "strong":
        return [_colour(0.4, p=0.8, hue=0.05), A.ToGray(p=0.1), A.GaussianBlur(sigma_limit=(0.5, 2.0), p=0.2)]
    # In the order of a camera: light, weather, exposure, sensor, stream.
    return [
        A.OneOf([A.RandomRain(drop_width=1, blur_value=3, brightness_coefficient=0.9), _Fog()], p=0.15),
        A.RandomShadow(p=0.1),
        _colour(0.3, p=0.6),
        A.OneOf([A.RandomGamma(gamma_limit=(120, 180)), _low_light()], p=0.3),
        A.ToGray(p=0.25),  # infrared at night
        A.OneOf([_motion_blur(), _low_resolution()], p=0.3),
        A.OneOf([A.GaussNoise(std_range=(0.02, 0.1)), A.ISONoise()], p=0.4),
        A.ImageCompression(quality_range=(25, 80), p=0.4),
    ]


def refuse_unknown_strength(strength: str) -> None:
    """Raises InputError unless it is one of ``STRENGTHS``."""
    if strength not in STRENGTHS:
        raise InputError(
            f"unknown augmentation strength '{strength}'{did_you_mean(strength, STRENGTHS)}; "
            f"there are {', '.join(STRENGTHS)}"
        )


class _RandomCrop(A.RandomResizedCrop):
    """RandomResizedCrop that resizes as the evaluation does, so that both see the same kind of pixels."""

    resample: Image.Resampling

    def apply(self, img: np.ndarray, crop_coords: tuple[int, int, int, int], **_params: Any) -> np.ndarray:
        left, top, right, bottom = crop_coords
        height, width = self.size
        crop = Image.fromarray(img[top:bottom, left:right])
        return np.array(crop.resize((width, height), self.resample))


class _Fog(A.ImageOnlyTransform):
    """Light scattered on the way: I t + A (1 - t), with t = exp(-depth), Koschmieder's law.

    Depth grows towards the upper edge, as a camera looks down on a street. RandomFog draws discs, for 25 ms.
    """

    def get_params(self) -> dict[str, Any]:
        return {"depth": self.py_random.uniform(0.3, 1.2), "light": self.py_random.uniform(160, 235)}

    def apply(self, img: np.ndarray, depth: float, light: float, **_params: Any) -> np.ndarray:
        clear = np.exp(-depth * np.linspace(1.5, 0.5, len(img), dtype=np.float32))[:, None, None]
        return (img * clear + light * (1 - clear)).round().astype(np.uint8)


def _colour(amount: float, p: float, hue: float = 0.0) -> A.ColorJitter:
    around_one = (1 - amount, 1 + amount)
    return A.ColorJitter(brightness=around_one, contrast=around_one, saturation=around_one, hue=(-hue, hue), p=p)


def _low_light() -> A.RandomBrightnessContrast:
    return A.RandomBrightnessContrast(brightness_limit=(-0.4, -0.15), contrast_limit=(-0.3, 0.0))


def _motion_blur() -> A.MotionBlur:
    # the defaults smear to one side, and move what is in the picture by up to 3 pixels
    return A.MotionBlur(blur_limit=(3, 9), direction_range=(0, 0), allow_shifted=False)


def _low_resolution() -> A.Downscale:
    # the default, nearest, moves it by 1.3 pixels on average
    return A.Downscale(
        scale_range=(0.4, 0.8), interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
    )
