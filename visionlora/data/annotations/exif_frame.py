"""Annotations of an image's stored pixels -> of the image turned as its EXIF orientation says."""

from dataclasses import replace

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from visionlora.data.annotations.annotated import LabelledObject, Polygons, RunLengths
from visionlora.data.annotations.run_lengths import as_coco


def turn_object(thing: LabelledObject, orientation: int, width: int, height: int) -> LabelledObject:
    """Turn one object; ``width`` and ``height`` are those of the stored pixels, ``orientation`` is 5 to 8."""
    ax, ay = turn_point(*thing.box[:2], orientation, width, height)
    bx, by = turn_point(*thing.box[2:], orientation, width, height)
    box = (min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
    return replace(thing, box=box, mask=_turn_mask(thing.mask, orientation, width, height))


def turn_point(x: float, y: float, orientation: int, width: int, height: int) -> tuple[float, float]:
    """A point of the stored pixels -> where it is shown."""
    if orientation == 5:  # mirrored at the diagonal
        return y, x
    if orientation == 6:  # a quarter turn to the right
        return height - y, x
    if orientation == 7:  # mirrored at the other diagonal
        return height - y, width - x
    if orientation == 8:  # a quarter turn to the left
        return y, width - x
    raise ValueError(f"orientation {orientation} doesn't swap width and height")


def _turn_mask(
    mask: Polygons | RunLengths | None, orientation: int, width: int, height: int
) -> Polygons | RunLengths | None:
    if isinstance(mask, Polygons):
        rings = []
        for ring in mask.rings:
            points = [turn_point(x, y, orientation, width, height) for x, y in zip(ring[::2], ring[1::2], strict=True)]
            rings.append(tuple(value for point in points for value in point))
        return Polygons(tuple(rings))
    if isinstance(mask, RunLengths):
        pixels = coco_mask.decode(as_coco(mask))  # (height, width)
        turned = {5: pixels.T, 6: np.rot90(pixels, -1), 7: np.rot90(pixels, 2).T, 8: np.rot90(pixels)}[orientation]
        packed = coco_mask.encode(np.asfortranarray(turned))
        return RunLengths(width, height, packed["counts"])
    return None
