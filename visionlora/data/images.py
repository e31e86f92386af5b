"""Image files: read one as RGB, and find those that can't be read before training starts."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from visionlora.errors import InputError, some

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""File names with these endings, in upper or lower case, count as images."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
_SIXTEEN_BIT = 65535


class _UnreadableError(Exception):
    """Carries only the reason; the callers know which file it is."""


def is_image(path: Path) -> bool:
    """Whether the file name is that of an image; the file isn't opened."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_image(path: Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB.

    EXIF orientation is applied. Grey is repeated to three channels, palettes are looked up, an alpha channel
    is dropped, and of several frames the first is taken. 16-bit grey is scaled by the range of its type, 0 to
    65535 -> 0 to 255, never by what one image happens to hold: brightness stays comparable between images.
    32-bit integer grey within 0 to 65535 is read as 16-bit; any other range, and floating point, is refused.

    Raises:
        InputError: no such file, not an image of a known format, damaged or truncated, or more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    try:
        return _decode(path, reduced=False)
    except _UnreadableError as error:
        raise InputError(f"{path}: {error}") from error


def find_unreadable(paths: Iterable[Path], on_progress: Callable[[int], None] | None = None) -> list[tuple[Path, str]]:
    """Decode every file and return those that `read_image` would refuse, with the reason, in the order given.

    JPEGs are decoded at an eighth of their size: the whole stream is still read, so truncation shows, for a
    fraction of the time. `on_progress` is called in this thread with the number of files done so far.
    """
    unreadable = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # PIL decodes without holding the GIL
        for done, (path, reason) in enumerate(pool.map(_check, paths), start=1):
            if reason is not None:
                unreadable.append((path, reason))
            if on_progress is not None:
                on_progress(done)
    return unreadable


def check_readable(paths: Iterable[Path], skip: bool, on_progress: Callable[[int], None] | None = None) -> set[Path]:
    """Return the files that can't be read if `skip`, for the caller to leave out and report.

    Raises:
        InputError: a file can't be read and `skip` is False.
    """
    unreadable = find_unreadable(paths, on_progress)
    if unreadable and not skip:
        listed = some(f"{path} ({reason})" for path, reason in unreadable)
        raise InputError(
            f"{len(unreadable)} image{'s' * (len(unreadable) > 1)} can't be read: {listed}; "
            "replace or remove them, or leave them out: data.skip_unreadable=true or --skip-unreadable"
        )
    return {path for path, _ in unreadable}


def _check(path: Path) -> tuple[Path, str | None]:
    try:
        _decode(path, reduced=True)
    except _UnreadableError as error:
        return path, str(error)
    return path, None


def _decode(path: Path, reduced: bool) -> np.ndarray:
    try:
        # Not by path: PIL then maps an uncompressed grey TIFF into memory with its sides swapped where the
        # orientation tag says so, and the rows come out scrambled (Pillow 13.0).
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            # PIL only warns here, and turning a warning into an error isn't thread-safe
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise _UnreadableError(
                    f"has {image.width} x {image.height} pixels, more than the {limit} that are taken as safe"
                )
            if reduced:
                image.draft(None, (1, 1))
            return _to_rgb(ImageOps.exif_transpose(image))
    except (_UnreadableError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise _UnreadableError("no such file") from error
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        reason = "empty file" if empty else f"not an image of a known format ({', '.join(_FORMATS)})"
        raise _UnreadableError(reason) from error
    except Exception as error:  # on a damaged file a decoder raises almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _UnreadableError(f"can't be decoded: {reason}") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8, writable."""
    if image.mode.startswith("I"):
        return _grey_to_rgb(np.asarray(image))
    if image.mode == "F":
        raise _UnreadableError("holds floating point values of no known range; save it with 8 or 16 bits")
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, PIL warns about transparency in a palette
    return np.array(image.convert("RGB"))


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """(H, W) integers in 0 to 65535 -> (H, W, 3) uint8; 257 = 65535 / 255."""
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > _SIXTEEN_BIT:
        raise _UnreadableError(f"holds 32-bit values from {low} to {high}; save it with 8 or 16 bits")
    scaled = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)
