"""Mask files: a class for every pixel, as a value, as an entry of a palette or as a colour."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from visionlora.data.images import UnreadableError, opened
from visionlora.data.segmentation.class_map import UNKNOWN, ClassMap, Color, codes_of, color_of
from visionlora.errors import InputError, some
from visionlora.files import write_atomic

_VALUES = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I")
"""PIL's modes whose pixels are one number each; of a palette that is the entry, not its colour."""


@dataclass(frozen=True)
class MaskFacts:
    """What a mask file holds.

    Attributes:
        path: the file.
        width, height: in pixels, EXIF orientation applied; 0 if it can't be read.
        colored: whether it is a colour picture.
        counts: (256,) pixels of each class, of `IGNORE` and of `UNKNOWN`.
        strange: what stands for no class, and how many pixels have it; the most frequent first.
        kind: of the fault, if it can't be read: a key of `faults.ERRORS`.
        reason: why not.
    """

    path: Path
    width: int = 0
    height: int = 0
    colored: bool = False
    counts: tuple[int, ...] = (0,) * 256
    strange: tuple[tuple[str, int], ...] = ()
    kind: str = ""
    reason: str | None = None


def read_mask(path: Path, class_map: ClassMap) -> np.ndarray:
    """Read a mask file as (H, W) uint8 of classes and `IGNORE`.

    Raises:
        InputError: it can't be read, or has a value or a colour that stands for no class.
    """
    facts, classes = _read(path, class_map)
    if facts.reason is not None:
        raise InputError(f"{path}: {facts.reason}")
    if facts.strange:
        raise InputError(f"{path}: {describe_strange(facts)} of no class; correct the mask, or the list of classes")
    return classes


def write_mask(path: Path, mask: np.ndarray, values: Sequence[int], colors: Sequence[Color]) -> None:
    """Write classes as a PNG of their values, which `read_mask` reads, atomically.

    Args:
        path: of the file.
        mask: (H, W) uint8 of classes.
        values: of the classes. Above 255 the PNG has 16 bits, and else a palette.
        colors: of the classes, for the palette.
    """
    pixels = np.array(values, np.uint8 if max(values) < 256 else np.uint16)[mask]
    image = Image.fromarray(pixels)
    if pixels.dtype == np.uint8:
        palette = np.zeros((256, 3), np.uint8)
        palette[list(values)] = colors
        image.putpalette(palette.ravel().tolist())
    write_atomic(path, lambda temporary: image.save(temporary, format="PNG"))


def examine_masks(
    paths: Iterable[Path], class_map: ClassMap, on_progress: Callable[[int], None] | None = None
) -> list[MaskFacts]:
    """Decode every file and count its classes, in the order given.

    `on_progress` is called in this thread with the number of files done so far.
    """
    facts = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # PIL decodes without holding the GIL
        for done, (found, _) in enumerate(pool.map(lambda path: _read(path, class_map), paths), start=1):
            facts.append(found)
            if on_progress is not None:
                on_progress(done)
    return facts


def describe_strange(facts: MaskFacts) -> str:
    """What stands for no class, for a message: ``value 12 (in 340 pixels), 13 (in 2 pixels)``."""
    listed = some((f"{value} (in {count} pixel{'s' * (count > 1)})" for value, count in facts.strange), 4)
    return f"{'color' if facts.colored else 'value'}{'s' * (len(facts.strange) > 1)} {listed}"


def _read(path: Path, class_map: ClassMap) -> tuple[MaskFacts, np.ndarray]:
    nothing = np.zeros((0, 0), np.uint8)
    try:
        mask, lossy = _decode(path)
    except UnreadableError as error:
        return MaskFacts(path, kind="broken-file", reason=f"{error}; replace or remove it"), nothing
    if lossy:
        return MaskFacts(path, kind="lossy-mask", reason="is a JPEG, which blurs values; save masks as PNG"), nothing
    colored = mask.ndim == 3
    if colored and not class_map.codes:
        grey = "is grey saved as RGB; save its one channel" if _is_grey(mask) else "is a colour picture"
        reason = f"{grey}, or give each class its color, as in {{name: road, color: [128, 64, 128]}}"
        return MaskFacts(path, kind="no-colors", reason=reason), nothing
    classes = class_map.classes_of(mask)
    counts = np.bincount(classes.ravel(), minlength=256)
    strange: tuple[tuple[str, int], ...] = ()
    if counts[UNKNOWN]:
        strange = _strange(codes_of(mask) if colored else mask, classes == UNKNOWN, colored)
    height, width = classes.shape
    return MaskFacts(path, width, height, colored, tuple(counts.tolist()), strange), classes


def _decode(path: Path) -> tuple[np.ndarray, bool]:
    """(H, W) values in 0 to 65535 or (H, W, 3) uint8 RGB, and whether the format is lossy."""
    with opened(path) as image:
        if image.format == "JPEG":
            return np.zeros((0, 0), np.uint8), True
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGB", "RGBA"):
            return np.asarray(image)[..., :3], False
        if image.mode == "LA":
            image = image.getchannel("L")
        if image.mode not in _VALUES:
            raise UnreadableError(
                f"is a {image.mode} picture, which is no mask; save values, a palette, or RGB colours"
            )
        values = np.asarray(image)
    if values.dtype == bool:
        return values.astype(np.uint8), False
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableError(f"holds values from {values.min()} to {values.max()}; masks have 0 to 65535")
    return values, False


def _strange(values: np.ndarray, where: np.ndarray, colored: bool) -> tuple[tuple[str, int], ...]:
    found, counts = np.unique(values[where], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple((str(color_of(int(found[i])) if colored else found[i]), int(counts[i])) for i in order)


def _is_grey(mask: np.ndarray) -> bool:
    return bool((mask[..., 0] == mask[..., 1]).all() and (mask[..., 1] == mask[..., 2]).all())
