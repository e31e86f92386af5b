"""Masks of objects: polygons and run lengths into pixels, moved by an affine map on the way.

Maps are (2, 3) matrices on coordinates that count from the image's corner: its first pixel reaches from 0 to 1.
"""

import cv2
import numpy as np
from faster_coco_eval.core import mask as coco

from visionlora.data.annotations.annotated import AnnotatedImages, Polygons, RunLengths
from visionlora.data.annotations.run_lengths import area, as_coco
from visionlora.errors import InputError

Mask = Polygons | RunLengths

Patch = tuple[np.ndarray, int, int]
"""Pixels (h, w) uint8 of 0 and 1, and the x and y of their corner in an image that is empty elsewhere."""


def refuse_missing_masks(data: AnnotatedImages) -> None:
    """Raises InputError if an object that isn't a crowd has no mask."""
    for image in data.images:
        for thing in image.objects:
            if thing.mask is None and not thing.crowd:
                where = f"{image.path}, {thing.source}" if thing.source else str(image.path)
                raise InputError(f"{where}: an object has no mask; give each one a mask, or train a detector of boxes")


def patch_through(mask: Mask, matrix: np.ndarray, width: int, height: int) -> Patch:
    """The mask as it is seen through a map, in an image of width x height; only where it can lie is drawn.

    Polygons are moved as points and drawn once, as COCO draws them; run lengths take the nearest pixel.
    """
    if isinstance(mask, Polygons):
        rings = _moved(mask, matrix)
        points = np.concatenate(rings)
        x, y, w, h = _within(points, width, height)
        # from the polygon's own corner: where a coordinate is negative, COCO's drawing is a pixel off
        left, top = np.floor(points.min(axis=0)).astype(int).tolist()
        if not w or not h:
            return np.zeros((h, w), np.uint8), x, y
        code = _draw([ring - (left, top) for ring in rings], x + w - left, y + h - top)["counts"]
        return _decode(code, y + h - top, x - left, y - top, w, h), x, y
    pixels, left, top = decode(mask)
    bottom, right = top + pixels.shape[0], left + pixels.shape[1]
    corners = np.array([[left, right, left, right], [top, top, bottom, bottom]])
    x, y, w, h = _within((matrix[:, :2] @ corners).T + matrix[:, 2], width, height)
    if not pixels.size or not w or not h:
        return np.zeros((h, w), np.uint8), x, y
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (left, top) - (x, y)
    return cv2.warpAffine(pixels, between_centres(shifted), (w, h), flags=cv2.INTER_NEAREST), x, y


def rasterise(mask: Mask, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """As ``patch_through``, but all of the image: (height, width) uint8 of 0 and 1."""
    pixels, x, y = patch_through(mask, matrix, width, height)
    whole = np.zeros((height, width), np.uint8)
    whole[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return whole


def area_through(mask: Mask, matrix: np.ndarray) -> float:
    """The mask's area in pixels after a map, the parts outside any image included."""
    if isinstance(mask, RunLengths):
        return area(mask) * abs(float(np.linalg.det(matrix[:, :2])))
    rings = _moved(mask, matrix)
    points = np.concatenate(rings)
    low = np.floor(points.min(axis=0))
    width, height = np.maximum(np.ceil(points.max(axis=0)) - low, 1).astype(int).tolist()
    return float(coco.area(_draw([ring - low for ring in rings], width, height)))


def encode(patch: Patch, width: int, height: int) -> RunLengths:
    """A patch in an image of width x height to run lengths, for the price of the patch."""
    pixels, x, y = patch
    columns = np.zeros((pixels.shape[1], height), np.uint8)
    columns[:, y : y + pixels.shape[0]] = pixels.T
    changes = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0)) + x * height
    counts = np.diff(changes, prepend=0, append=width * height)
    if not counts[-1]:
        counts = counts[:-1]  # as COCO writes it
    return RunLengths(
        height, width, coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)["counts"]
    )


def decode(mask: RunLengths) -> Patch:
    """The part of a mask that isn't empty. Nothing larger is laid out: an image may have hundreds of megapixels."""
    x, y, width, height = coco.toBbox(as_coco(mask)).astype(int).tolist()
    return _decode(mask.counts, mask.height, x, y, width, height), x, y


def box_of(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """(x1, y1, x2, y2) around the pixels of an (H, W) mask that aren't 0; there must be one."""
    columns, rows = np.flatnonzero(pixels.any(axis=0)), np.flatnonzero(pixels.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def between_centres(matrix: np.ndarray) -> np.ndarray:
    """The same map as OpenCV wants it: coordinates that count from the centre of the first pixel."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return moved


def _within(points: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """x, y, width and height in whole pixels around (n, 2) points, cut off at an image's sides."""
    left, top = np.clip(np.floor(points.min(axis=0)), 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(points.max(axis=0)), 0, (width, height)).astype(int).tolist()
    return left, top, right - left, bottom - top


def _moved(mask: Polygons, matrix: np.ndarray) -> list[np.ndarray]:
    """Rings of (points, 2)."""
    return [np.reshape(ring, (-1, 2)) @ matrix[:, :2].T + matrix[:, 2] for ring in mask.rings]


def _draw(rings: list[np.ndarray], width: int, height: int) -> dict:
    """The union of rings as COCO's run-length dict; what lies outside is cut off."""
    return coco.merge(coco.frPyObjects([ring.ravel().tolist() for ring in rings], height, width))


def _decode(code: bytes, image_height: int, x: int, y: int, width: int, height: int) -> np.ndarray:
    """(height, width) uint8 at x, y of an image of that height; only its columns are laid out."""
    counts = _counts(code)
    first, last = x * image_height, (x + width) * image_height
    edges = np.clip(np.cumsum(counts), first, last) - first
    values = (np.arange(len(counts)) % 2).astype(np.uint8)
    columns = np.repeat(values, np.diff(edges, prepend=0)).reshape(width, image_height)
    return np.ascontiguousarray(columns[:, y : y + height].T)


def _counts(code: bytes) -> np.ndarray:
    """Lengths of the runs, from background (``rleFrString`` in pycocotools' maskApi.c).

    Five bits a character, low ones first; bit 5 says that more follow, bit 4 of the last is the sign. From the
    fourth run on, a number is the difference to the run before the last.
    """
    characters = np.frombuffer(code, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((characters & 0x20) == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(len(characters)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((characters & 0x1F) << (5 * place), starts)
    negative = (characters[ends] & 0x10) != 0
    numbers -= np.where(negative, 1 << (5 * (place[ends] + 1)), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
