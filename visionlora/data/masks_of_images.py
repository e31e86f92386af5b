"""Which folder holds masks of another's images: told by the names of files, and by the look of the pictures."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from PIL import Image

from visionlora.data.folders import images_in
from visionlora.data.images import UnreadableError, opened

OF_IMAGES = ("", "_leftImg8bit", "_image", "_img", "_rgb", "_sat")
"""What images may have at the end of their names that masks have not."""

_NO_CLASSES = ("color", "colour", "instance", "overlay", "edge", "viz", "panoptic", "polygon")
"""In endings of pictures that are made from masks, or for something else."""

_TELLING = ("mask", "label", "seg", "annot", "trimap", "_gt", "-gt")
"""In endings that only masks have; of others, and of masks that are called like their images, the look decides."""

_ENOUGH = 0.8
"""Of the images so many must have a mask of the same ending."""

_FEW, _SAMPLED = 6, 3
"""More folders than this are no images and masks; of each pair of folders so many files are opened."""

_FLAT, _RICH = 0.8, 0.5
"""Share of the pixels that have one of the eight most frequent colours: in a mask at least, in a photo at most."""


@dataclass(frozen=True)
class MasksOfImages:
    """Two folders, what masks have at the end of their names, and an image with its mask."""

    images: Path
    masks: Path
    ending: str
    example: tuple[Path, Path]

    def __str__(self) -> str:
        image, mask = self.example
        return f"{self.masks.name} holds masks of the images in {self.images.name} ({image.name}, {mask.name})"


def find_masks_of_images(folders: Sequence[Path]) -> MasksOfImages | None:
    """The first folder that holds masks of the images in another, None if there is none; of many folders, none does."""
    if not 1 < len(folders) <= _FEW:
        return None
    named = [
        {path.relative_to(folder).with_suffix("").as_posix(): path for path in images_in(folder)} for folder in folders
    ]
    for one, other in permutations(range(len(folders)), 2):
        for ending, pairs in _pairings(named[one], named[other]):
            telling = any(word in ending.lower() for word in _TELLING)
            if telling or _look_like_masks(pairs):
                return MasksOfImages(folders[one], folders[other], ending, pairs[0])
    return None


def common_endings(images: Iterable[str], masks: Iterable[str]) -> tuple[str, list[str]]:
    """What nearly all images lack, or have, at the end of their names, and the endings that masks have instead.

    Of several endings those that tell of classes, if some do; none if masks aren't called after their images.
    """
    images, masks = list(images), list(masks)
    for end in OF_IMAGES:
        if not all(name.endswith(end) for name in images):
            continue
        bases = {name.removesuffix(end) for name in images}
        counts = Counter(ending for name in masks if (ending := _ending(name, bases)) is not None)
        found = sorted(ending for ending, count in counts.items() if count >= _ENOUGH * len(bases))
        if found:
            return end, [one for one in found if not any(word in one.lower() for word in _NO_CLASSES)] or found
    return "", []


def _ending(name: str, bases: Collection[str]) -> str | None:
    """What a mask's name has after the longest name of an image that it begins with; 12 is not 1 with an ending."""
    for cut in range(len(name) - 1, 0, -1):
        if name[:cut] in bases:
            return None if name[cut].isdigit() else name[cut:]
    return None


def _pairings(images: dict[str, Path], masks: dict[str, Path]) -> Iterable[tuple[str, list[tuple[Path, Path]]]]:
    """Ways in which most files of two folders belong together: what masks have at the end, and the pairs."""
    shared = sorted(images.keys() & masks.keys())
    if shared and 2 * len(shared) >= max(len(images), len(masks)):
        yield "", [(images[name], masks[name]) for name in shared]
    elif images and masks:
        end, endings = common_endings(images, masks)
        for ending in endings:
            names = [(name, name.removesuffix(end) + ending) for name in sorted(images)]
            yield ending, [(images[name], masks[mask]) for name, mask in names if mask in masks]


def _look_like_masks(pairs: Sequence[tuple[Path, Path]]) -> bool:
    """Whether each mask that is looked at is flat, unlike its image."""
    looked_at = pairs[:: -(-len(pairs) // _SAMPLED)]
    return all(_flatness(mask) >= _FLAT and 0 < _flatness(image) <= _RICH for image, mask in looked_at)


def _flatness(path: Path) -> float:
    """Share of the pixels that have one of the eight most frequent colours; 0 if the file can't be read."""
    try:
        with opened(path) as image:
            width, height = image.size
            left, top = max(0, (width - 256) // 2), max(0, (height - 256) // 2)
            part: Image.Image = image.crop((left, top, min(width, left + 256), min(height, top + 256)))
            pixels = np.asarray(part.convert("RGB")).reshape(-1, 3).astype(np.int64)
    except UnreadableError:
        return 0.0
    _, counts = np.unique(pixels @ (1, 256, 65536), return_counts=True)
    return float(np.sort(counts)[-8:].sum() / len(pixels))
