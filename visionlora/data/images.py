"""Image files: read one as RGB, and find those that can't be read before training starts."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from visionlora.data.near_duplicates import fingerprint
from visionlora.errors import InputError, some

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
"""File names with these endings, in upper or lower case, count as images."""

Triple = tuple[float, float, float]
"""A value for each of red, green and blue."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
_SIXTEEN_BIT = 65535
_SMALLEST = (72, 64)
"""Down to which size a JPEG may be decoded where it is only looked at."""


@dataclass(frozen=True)
class ImageFacts:
    """What an image file is.

    Attributes:
        path: the file.
        width, height: in pixels, as ``read_image`` returns it (EXIF orientation applied); 0 if it can't be read.
        orientation: EXIF's, 1 to 8, where the stored pixels are otherwise: from 5 on, width and height are swapped.
        fingerprint: for ``near_duplicates``.
        reason: why ``read_image`` would refuse it; None if it can be read.
    """

    path: Path
    width: int = 0
    height: int = 0
    orientation: int = 1
    fingerprint: bytes = b""
    reason: str | None = None


class UnreadableError(Exception):
    """Carries only the reason why a file can't be read; the callers know which one it is."""


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
            ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    try:
        with opened(path) as image:
            return _to_rgb(_turned(image))
    except UnreadableError as error:
        raise InputError(f"{path}: {error}") from error


def readable_images(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    """One image after the other, as ``read_image`` reads them; those that can't be read are left out."""
    for path in paths:
        with suppress(InputError):
            yield read_image(path)


def orientation_of(path: Path) -> int:
    """EXIF's, 1 to 8. InputError if the file can't be read."""
    try:
        with opened(path) as image:
            return _orientation(image)
    except UnreadableError as error:
        raise InputError(f"{path}: {error}") from error


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def _turned(image: Image.Image) -> Image.Image:
    """As EXIF says; exif_transpose would copy what need not be turned."""
    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


def examine_images(paths: Iterable[Path], on_progress: Callable[[int], None] | None = None) -> list[ImageFacts]:
    """Decode every file, and say what it is, in the order given.

    JPEGs are decoded at an eighth of their size: the whole stream is still read, so truncation shows, for a
    fraction of the time. ``on_progress`` is called in this thread with the number of files done so far.
    """
    facts = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # PIL decodes without holding the GIL
        for done, found in enumerate(pool.map(_examine, paths), start=1):
            facts.append(found)
            if on_progress is not None:
                on_progress(done)
    return facts


def find_unreadable(paths: Iterable[Path], on_progress: Callable[[int], None] | None = None) -> list[tuple[Path, str]]:
    """Decode every file and return those that ``read_image`` would refuse, with the reason, in the order given.

    ``on_progress`` is called in this thread with the number of files done so far.
    """
    return [(facts.path, facts.reason) for facts in examine_images(paths, on_progress) if facts.reason is not None]


def check_readable(paths: Iterable[Path], skip: bool, on_progress: Callable[[int], None] | None = None) -> set[Path]:
    """Return the files that can't be read if ``skip``, for the caller to leave out and report.

    Raises:
        InputError: a file can't be read and ``skip`` is False.
    """
    unreadable = find_unreadable(paths, on_progress)
    if unreadable and not skip:
        listed = some(f"{path} ({reason})" for path, reason in unreadable)
        raise InputError(
            f"{len(unreadable)} image{'s' * (len(unreadable) > 1)} can't be read: {listed}; "
            "replace or remove them, or leave them out: data.skip_unreadable=true or --skip-unreadable"
        )
    return {path for path, _ in unreadable}


_PASSING: set[Path] = set()


@contextmanager
def passing(paths: Iterable[Path]) -> Iterator[None]:
    """Files that are only half there pass as long as their size can be read: a run that resumes has left them out."""
    _PASSING.update(paths)
    try:
        yield
    finally:
        _PASSING.clear()


def _examine(path: Path) -> ImageFacts:
    try:
        with opened(path) as image:
            if path in _PASSING:
                return _without_pixels(path, image)
            size, orientation = _upright(image), _orientation(image)
            image.draft(None, _SMALLEST)
            pixels = Image.fromarray(_to_rgb(_turned(image)))
    except UnreadableError as error:
        return ImageFacts(path, reason=str(error))
    return ImageFacts(path, *size, orientation, fingerprint(pixels))


def _without_pixels(path: Path, image: Image.Image) -> ImageFacts:
    try:
        return ImageFacts(path, *_upright(image), _orientation(image))
    except Exception:  # PNG may have its EXIF behind the pixels
        return ImageFacts(path, *image.size)


def _upright(image: Image.Image) -> tuple[int, int]:
    """Width and height with EXIF's orientation applied; of a TIFF, PIL has swapped them already."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 and image.format != "TIFF" else (width, height)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """PIL's image, not decoded yet; whatever goes wrong until it is closed becomes an UnreadableError."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise UnreadableError("is no regular file")  # to open a pipe would wait for ever
        # Not by path: PIL then maps an uncompressed grey TIFF into memory with its sides swapped where the
        # orientation tag says so, and the rows come out scrambled (Pillow 13.0).
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            # PIL only warns here, and turning a warning into an error isn't thread-safe
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise UnreadableError(
                    f"has {image.width} x {image.height} pixels, more than the {limit} that are taken as safe"
                )
            yield image
    except (UnreadableError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UnreadableError("no such file") from error
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        reason = "empty file" if empty else f"not an image of a known format ({', '.join(_FORMATS)})"
        raise UnreadableError(reason) from error
    except Exception as error:  # on a damaged file a decoder raises almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(f"can't be decoded: {reason}") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8, writable."""
    if image.mode.startswith("I"):
        return _grey_to_rgb(np.asarray(image))
    if image.mode == "F":
        raise UnreadableError("holds floating point values of no known range; save it with 8 or 16 bits")
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, PIL warns about transparency in a palette
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # which would copy


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """(H, W) integers in 0 to 65535 -> (H, W, 3) uint8; 257 = 65535 / 255."""
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > _SIXTEEN_BIT:
        raise UnreadableError(f"holds 32-bit values from {low} to {high}; save it with 8 or 16 bits")
    scaled = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)
