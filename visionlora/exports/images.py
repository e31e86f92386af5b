"""The images that an export is checked on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from visionlora.data.folders import images_in
from visionlora.data.images import read_image
from visionlora.errors import InputError

COUNT = 8


@dataclass(frozen=True)
class Chosen:
    """Some images, (H, W, 3) uint8 RGB, and in words where they are from."""

    images: list[np.ndarray]
    origin: str


def choose_images(given: Sequence[Path], validation: Sequence[Path], why: str) -> Chosen:
    """The images that were given; else some of the run's validation; else generated ones.

    Args:
        given: files and folders of images.
        validation: the run's; empty if they are not at hand.
        why: in words, why not.

    Raises:
        InputError: a given image is not there or can't be read.
    """
    if given:
        paths = _spread([path for one in given for path in (images_in(one) if one.is_dir() else [one])])
        if not paths:
            raise InputError(f"--images {given[0]}: holds no image")
        return Chosen([read_image(path) for path in paths], f"{len(paths)} given images")
    if validation:
        paths = _spread(validation)
        return Chosen([read_image(path) for path in paths], f"{len(paths)} validation images of the run")
    return Chosen(generated_images(), f"{COUNT} generated images ({why})")


def generated_images(count: int = COUNT, seed: int = 0) -> list[np.ndarray]:
    """Smooth, coloured noise with hard-edged rectangles on it, of several shapes."""
    generator = np.random.default_rng(seed)
    images = []
    for number in range(count):
        width, height = [(320, 240), (240, 320), (256, 256), (400, 225)][number % 4]
        coarse = generator.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        pixels = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        for _ in range(6):
            x, y = int(generator.integers(width)), int(generator.integers(height))
            w, h = (int(side) for side in generator.integers(10, 120, 2))
            pixels[y : y + h, x : x + w] = generator.integers(0, 256, 3)
        images.append(pixels)
    return images


def _spread(paths: Sequence[Path]) -> list[Path]:
    """At most ``COUNT``, evenly from the whole list."""
    return [paths[round(place)] for place in np.linspace(0, len(paths) - 1, min(COUNT, len(paths)))]
