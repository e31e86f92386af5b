"""Mask files: a class for every pixel, as a value, as an entry of a palette or as a colour."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from visionlora.data.images import UnreadableError, opened
from visionlora.data.segmentation.class_map import IGNORE, UNKNOWN, ClassMap, Color, codes_of, color_of
from visionlora.errors import InputError, some
from visionlora.files import write_atomic

_VALUES = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I")
"""PIL's modes whose pixels are one number each; of a palette that is the entry, not its colour."""

_NEARLY = 16
"""So much the channels of grey may differ in a JPEG."""


@dataclass(frozen=True)
class MaskFacts:
    """What a mask file holds.

    Attributes:
        path: the file.
        width, height: in pixels, EXIF orientation applied; 0 if it can't be read.
        colored: whether it is a colour picture.
        counts: (256,) pixels of each class, of ``IGNORE`` and of ``UNKNOWN``.
        strange: what stands for no class, and how many pixels have it; the most frequent first.
        rounded: how many pixels were rounded to the nearest class.
        grey: whether it is grey saved as colours, of which the one channel was taken.
        kind: of the fault, if it can't be read: a key of ``faults.ERRORS``.
        reason: why not.
    """

    path: Path
    width: int = 0
    height: int = 0
    colored: bool = False
    counts: tuple[int, ...] = (0,) * 256
    strange: tuple[tuple[str, int], ...] = ()
    rounded: int = 0
    grey: bool = False
    kind: str = ""
    reason: str | None = None


def read_mask(path: Path, class_map: ClassMap) -> np.ndarray:
    """Read a mask file as (H, W) uint8 of classes and ``IGNORE``.

    Raises:
        InputError: it can't be read, or has a value or a colour that stands for no class.
    """
    facts, classes = _read(path, class_map)
    if facts.reason is not None:
        raise InputError(f"{path}: {facts.reason}")
    if facts.strange:
        raise InputError(f"{path}: {describe_strange(facts)} of no class; correct the mask, or the list of classes")
    return classes


def fit_mask(mask: np.ndarray, width: int, height: int, orientation: int = 1) -> np.ndarray:
    """(h, w) classes as (height, width): where they don't fit, turned as EXIF's ``orientation`` turns an image, or
    scaled by the nearest neighbour.
    """
    if orientation >= 5 and mask.shape == (width, height):
        methods = {5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
        return np.asarray(Image.fromarray(mask).transpose(Image.Transpose[methods[orientation]]))
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def write_mask(path: Path, mask: np.ndarray, values: Sequence[int], colors: Sequence[Color]) -> None:
    """Write classes as a PNG of their values, which ``read_mask`` reads, atomically.

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

    ``on_progress`` is called in this thread with the number of files done so far.
    """
    facts = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # PIL decodes without holding the GIL
        for done, (found, _) in enumerate(pool.map(lambda path: _read(path, class_map), paths), start=1):
            facts.append(found)
            if on_progress is not None:
                on_progress(done)
    return facts


def raw_values(path: Path) -> dict[str, int]:
    """Values, or colours of a colour picture, and in how many pixels; empty if the file can't be read."""
    try:
        mask, _, _ = _decode(path)
    except UnreadableError:
        return {}
    colored = mask.ndim == 3
    return dict(_strange(codes_of(mask) if colored else mask, np.ones(mask.shape[:2], bool), colored))


def describe_strange(facts: MaskFacts) -> str:
    """What stands for no class, for a message: ``value 12 (in 340 pixels), 13 (in 2 pixels)``."""
    listed = some((f"{value} (in {count} pixel{'s' * (count > 1)})" for value, count in facts.strange), 4)
    return f"{'color' if facts.colored else 'value'}{'s' * (len(facts.strange) > 1)} {listed}"


def _read(path: Path, class_map: ClassMap) -> tuple[MaskFacts, np.ndarray]:
    nothing = np.zeros((0, 0), np.uint8)
    try:
        mask, colors, lossy = _decode(path)
    except UnreadableError as error:
        return MaskFacts(path, kind="broken-file", reason=f"{error}; replace or remove it"), nothing
    if lossy and not class_map.nearest:
        reason = "is a JPEG, which blurs values; save masks as PNG, or take the nearest class: data.round_masks=true"
        return MaskFacts(path, kind="lossy-mask", reason=f"{reason} (check-data --round-masks)"), nothing
    grey = mask.ndim == 3 and not class_map.codes and _is_grey(mask, class_map.nearest)
    if grey:
        mask = mask[..., 1]
    colored = mask.ndim == 3
    if colored and not class_map.codes:
        reason = "is a colour picture; give each class its color, as in {name: road, color: [128, 64, 128]}"
        return MaskFacts(path, kind="no-colors", reason=reason), nothing
    classes = _by_palette(mask, colors, class_map)
    counts = np.bincount(classes.ravel(), minlength=256)
    unknown = int(counts[UNKNOWN])
    if unknown and class_map.nearest:
        classes = class_map.rounded(mask, classes)
        counts = np.bincount(classes.ravel(), minlength=256)
    strange: tuple[tuple[str, int], ...] = ()
    if counts[UNKNOWN]:
        strange = _strange(codes_of(mask) if colored else mask, classes == UNKNOWN, colored)
    height, width = classes.shape
    rounded = unknown - int(counts[UNKNOWN])
    return MaskFacts(path, width, height, colored, tuple(counts.tolist()), strange, rounded, grey), classes


def _decode(path: Path) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """(H, W) values in 0 to 65535 or (H, W, 3) uint8 RGB, the (256, 3) colours of 8-bit values, and whether lossy."""
    with opened(path) as image:
        lossy = image.format in ("JPEG", "MPO")
        image = ImageOps.exif_transpose(image)
        if image.mode == "PA":
            image = image.convert("RGBA")
        if image.mode in ("RGB", "RGBA"):
            return np.asarray(image)[..., :3], None, lossy
        if image.mode == "LA":
            image = image.getchannel("L")
        if image.mode not in _VALUES:
            raise UnreadableError(
                f"is a {image.mode} picture, which is no mask; save values, a palette, or RGB colours"
            )
        values = np.asarray(image)
        colors = _palette(image)
    if values.dtype == bool:
        return values.astype(np.uint8), colors, lossy
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableError(f"holds values from {values.min()} to {values.max()}; masks have 0 to 65535")
    return values, colors, lossy


def _palette(image: Image.Image) -> np.ndarray | None:
    """(256, 3) uint8 of what 8-bit values look like; None for others."""
    if image.mode == "L":
        return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    if image.mode != "P":
        return None
    given = np.array(image.getpalette() or [], np.uint8)
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(given) // 3] = given.reshape(-1, 3)[:256]
    return colors


def _by_palette(mask: np.ndarray, colors: np.ndarray | None, class_map: ClassMap) -> np.ndarray:
    """Classes by value; by the colours of a palette, or of grey whose values are none, if all of them are classes."""
    classes = class_map.classes_of(mask)
    if colors is None or not class_map.codes:
        return classes
    used = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    own = class_map.classes_of(used.astype(np.uint8)[None])[0]
    shown = class_map.classes_of(colors[used][None])[0]
    is_grey = bool((colors == np.arange(256)[:, None]).all())
    if is_grey and not ((own == UNKNOWN) | ((own == IGNORE) & (shown < UNKNOWN))).any():
        return classes
    shown = np.where((shown == UNKNOWN) & (own == IGNORE), IGNORE, shown)
    if UNKNOWN in shown:
        return classes
    table = np.full(256, UNKNOWN, np.uint8)
    table[used] = shown
    return table[mask]


def _strange(values: np.ndarray, where: np.ndarray, colored: bool) -> tuple[tuple[str, int], ...]:
    found, counts = np.unique(values[where], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple((str(color_of(int(found[i])) if colored else found[i]), int(counts[i])) for i in order)


def _is_grey(mask: np.ndarray, nearly: bool) -> bool:
    """Whether its channels are equal, or nearly, as in a JPEG."""
    spread = mask.max(axis=2).astype(np.int16) - mask.min(axis=2)
    return int(spread.max()) <= (_NEARLY if nearly else 0)
