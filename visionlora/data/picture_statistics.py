"""What a camera's pictures look like, in a hundred numbers: brightness, contrast, sharpness, noise, colour and layout.

These need no model and a millisecond or two. Features of the base would cost a forward of their own, change with every
object that passes, and name no cause.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from visionlora.errors import InputError, shown

LEAST = 20
"""Pictures that statistics are made of at least."""
MOST = 128
"""And at most, taken evenly."""
FEATURES = ("brightness", "contrast", "sharpness", "noise", "red", "blue", "saturation", "layout")
"""Of a picture. ``red`` and ``blue`` are mean chroma; ``layout`` is how the picture correlates with the mean one."""

_SIDE = 480
"""Pixels of the longer side of what is looked at."""
_THUMB, _CELLS = (16, 12), (6, 4)
"""Columns and rows of the layout, and of the cells whose texture is kept."""
_FLOOR = np.array([6.0, 4.0, 0.12, 0.15, 1.5, 1.5, 2.0, 0.04])
"""Added to each feature's deviation: so much changes by itself, and a set of pictures may be all alike."""
_LEAST_LIMIT, _MARGIN = 4.0, 1.25
"""Deviations that a feature may always be off; and by how much more than the blocks of the set itself were."""
_BLOCKS = 10


@dataclass(frozen=True)
class Picture:
    """What is measured of one picture.

    Attributes:
        scalars: the features but ``layout``.
        thumb: (12, 16) brightness, without its mean and in units of its deviation.
        texture: (24,) logarithms of the mean gradient in the cells, relative to their brightness.
    """

    scalars: np.ndarray
    thumb: np.ndarray
    texture: np.ndarray


def measure(image: np.ndarray) -> Picture:
    """Measure a picture, (H, W, 3) uint8 RGB of any size."""
    scale = _SIDE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ycrcb = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb).astype(np.float32)
    luma, red, blue = ycrcb[..., 0], ycrcb[..., 1] - 128, ycrcb[..., 2] - 128
    thumb = cv2.resize(luma, _THUMB, interpolation=cv2.INTER_AREA)
    across, down = cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=0.125)
    gradient = cv2.magnitude(across, down)
    detail = np.abs(cv2.Laplacian(luma, cv2.CV_32F))
    # Immerkaer 1996: a kernel that edges pass unseen; its median is the flat parts', where noise alone is left.
    grain = np.abs(cv2.filter2D(luma, cv2.CV_32F, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)))
    cells = cv2.resize(gradient, _CELLS, interpolation=cv2.INTER_AREA)
    light = cv2.resize(luma, _CELLS, interpolation=cv2.INTER_AREA)
    scalars = [
        luma.mean(),
        thumb.std(),
        math.log((detail.mean() + 0.25) / (gradient.mean() + 0.25)),
        math.log(float(np.median(grain)) + 0.5),
        red.mean(),
        blue.mean(),
        np.hypot(red, blue).mean(),
    ]
    return Picture(
        np.array(scalars, np.float64),
        ((thumb - thumb.mean()) / (thumb.std() + 1)).astype(np.float64),
        np.log((cells + 0.02) / (light + 10)).ravel().astype(np.float64),
    )


@dataclass(frozen=True)
class PictureStatistics:
    """What a set of pictures looks like; small enough for an adapter's header.

    Attributes:
        images: how many were measured.
        mean, deviation: of each of ``FEATURES``.
        limit: deviations that the median of several pictures may be off, for each feature.
        thumb: the mean layout, (12, 16).
        texture: medians of the cells' texture, (24,).
    """

    images: int
    mean: np.ndarray
    deviation: np.ndarray
    limit: np.ndarray
    thumb: np.ndarray
    texture: np.ndarray

    @classmethod
    def of(cls, images: Iterable[np.ndarray]) -> "PictureStatistics | None":
        """Of pictures in the order in which they were taken, (H, W, 3) uint8 RGB; None of fewer than ``LEAST``.

        The limits are found by holding out one tenth after the other: each must lie within what the others allow.
        """
        pictures = [measure(image) for image in images]
        if len(pictures) < LEAST:
            return None
        whole = cls._fitted(pictures)
        worst = np.zeros(len(FEATURES))
        for block in np.array_split(np.arange(len(pictures)), _BLOCKS):
            rest = cls._fitted([one for place, one in enumerate(pictures) if place not in set(block.tolist())])
            worst = np.maximum(worst, np.abs(rest.off([pictures[place] for place in block])))
        limit = np.maximum(_LEAST_LIMIT, _MARGIN * worst)
        return cls(whole.images, whole.mean, whole.deviation, limit, whole.thumb, whole.texture)

    @classmethod
    def _fitted(cls, pictures: Sequence[Picture]) -> "PictureStatistics":
        thumb = np.mean([one.thumb for one in pictures], axis=0)
        features = np.array([_features(one, thumb) for one in pictures])
        texture = np.median([one.texture for one in pictures], axis=0)
        nothing = np.zeros(len(FEATURES))
        return cls(len(pictures), features.mean(axis=0), features.std(axis=0) + _FLOOR, nothing, thumb, texture)

    def off(self, pictures: Sequence[Picture]) -> np.ndarray:
        """By how many deviations the median of several pictures is off, for each of ``FEATURES``."""
        features = np.median([_features(one, self.thumb) for one in pictures], axis=0)
        found: np.ndarray = (features - self.mean) / self.deviation
        return found

    def texture_lost(self, pictures: Sequence[Picture]) -> np.ndarray:
        """(24,): the logarithm of what the cells' texture has become of what it was; the median of several pictures."""
        found: np.ndarray = np.median([one.texture for one in pictures], axis=0) - self.texture
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, to five digits, for a model's file."""
        arrays = {name: getattr(self, name) for name in _SHAPES}
        return {
            "images": self.images,
            **{name: [float(f"{value:.5g}") for value in array.ravel()] for name, array in arrays.items()},
        }

    @classmethod
    def from_dict(cls, values: Any) -> "PictureStatistics":
        """The inverse of ``to_dict``. Raises InputError unless they are that."""
        if not isinstance(values, Mapping) or type(values.get("images")) is not int:
            raise InputError(f"statistics of pictures are {shown(values)}; train or recalibrate again")
        arrays = {}
        for name, shape in _SHAPES.items():
            try:
                array = np.array(values[name], np.float64).reshape(shape)
            except (KeyError, ValueError, TypeError) as error:
                raise InputError(f"statistics of pictures: {name} is damaged; train or recalibrate again") from error
            if not np.isfinite(array).all() or (name in ("deviation", "limit") and not (array > 0).all()):
                raise InputError(f"statistics of pictures: {name} has impossible values; train or recalibrate again")
            arrays[name] = array
        return cls(values["images"], **arrays)


_SHAPES: dict[str, tuple[int, ...]] = {
    "mean": (len(FEATURES),),
    "deviation": (len(FEATURES),),
    "limit": (len(FEATURES),),
    "thumb": _THUMB[::-1],
    "texture": (_CELLS[0] * _CELLS[1],),
}


def _features(picture: Picture, thumb: np.ndarray) -> np.ndarray:
    reference = thumb - thumb.mean()
    layout = float((picture.thumb * reference).mean() / (picture.thumb.std() * reference.std() + 1e-6))
    return np.array([*picture.scalars, layout])


def evenly(count: int, most: int = MOST) -> list[int]:
    """At most so many of ``count`` places, evenly taken, in their order."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, most).tolist()})
