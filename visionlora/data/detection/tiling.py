"""Large images cut into overlapping tiles, so that small objects keep their pixels."""

from dataclasses import dataclass, replace

import numpy as np

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, Box, LabelledObject, Polygons
from visionlora.data.annotations.masks import Mask, area_through, box_of, encode, patch_through
from visionlora.data.geometry import MIN_VISIBLE
from visionlora.data.windows import Window, windows
from visionlora.errors import InputError


@dataclass(frozen=True)
class Tile(AnnotatedImage):
    """A window of an image file as an image of its own: ``width``, ``height`` and ``objects`` are the window's.

    Attributes:
        window: where in the file.
        original_size: height and width of the file.
        image_id: index of the image in the data set that was cut.
    """

    window: Window = (0, 0, 0, 0)
    original_size: tuple[int, int] = (0, 0)
    image_id: int = 0


def cut(data: AnnotatedImages, side: int, overlap: int, empty: bool = True) -> AnnotatedImages:
    """The tiles of every image, row by row, as a data set of ``Tile``.

    An object belongs to every tile that shows at least ``MIN_VISIBLE`` of it (of its mask, or else its box), clipped
    to the tile. One that is no larger than the overlap is whole in at least one. A crowd belongs wherever it shows.

    Args:
        side: of the tiles, in pixels; an image that is smaller is its own tile.
        overlap: at least so many pixels are shared with the next tile.
        empty: whether tiles without an object are kept.

    Raises:
        InputError: ``overlap`` isn't between 0 and ``side``, or no tile has an object and ``empty`` is False.
    """
    tiles: list[AnnotatedImage] = []
    for index, image in enumerate(data.images):
        for window in windows(image.width, image.height, side, overlap):
            objects = tuple(part for thing in image.objects if (part := clip_object(thing, window)))
            if objects or empty:
                x1, y1, x2, y2 = window
                size = image.height, image.width
                tiles.append(
                    Tile(
                        image.path, x2 - x1, y2 - y1, objects, image.fields, window, original_size=size, image_id=index
                    )
                )
    if not tiles:
        raise InputError(f"no tile of {side} px has an object; check the annotations, or keep empty tiles")
    return replace(data, images=tiles)


def clip_object(thing: LabelledObject, window: Window) -> LabelledObject | None:
    """The object in a window's own pixels, or None if it shows too little of it.

    Where the window cuts an object with a mask, the box becomes the one around what is left of the mask.
    """
    x1, y1, x2, y2 = window
    width, height = x2 - x1, y2 - y1
    left, top, right, bottom = thing.box[0] - x1, thing.box[1] - y1, thing.box[2] - x1, thing.box[3] - y1
    box: Box = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if box[0] >= box[2] or box[1] >= box[3]:
        return None
    share = (box[2] - box[0]) * (box[3] - box[1]) / ((right - left) * (bottom - top))
    mask = thing.mask
    if mask is not None:
        mask, share, box = _clip_mask(mask, window, share, box)
    if share == 0 or (share < MIN_VISIBLE and not thing.crowd):
        return None
    return replace(thing, box=box, mask=mask)


def _clip_mask(mask: Mask, window: Window, share: float, box: Box) -> tuple[Mask, float, Box]:
    """The mask in the window's pixels, and how much of it that is; share and box are those of the box alone."""
    x1, y1, x2, y2 = window
    if share == 1 and isinstance(mask, Polygons):
        shifted = tuple(tuple((np.reshape(ring, (-1, 2)) - (x1, y1)).ravel().tolist()) for ring in mask.rings)
        return Polygons(shifted), share, box
    matrix = np.array([[1.0, 0, -x1], [0, 1, -y1]])
    pixels, x, y = patch_through(mask, matrix, x2 - x1, y2 - y1)
    if share < 1:
        share = float(pixels.sum()) / max(1.0, area_through(mask, matrix))
        if share > 0:
            left, top, right, bottom = box_of(pixels)
            box = float(x + left), float(y + top), float(x + right), float(y + bottom)
    return encode((pixels, x, y), x2 - x1, y2 - y1), share, box
