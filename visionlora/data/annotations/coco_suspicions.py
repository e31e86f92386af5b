"""What a COCO file as a whole makes one suspect: nothing is wrong with any of its entries."""

from collections.abc import Sequence
from typing import Any

from visionlora.data.annotations.annotated import AnnotatedImage, RunLengths
from visionlora.data.faults import Spot

_FEWEST = 4
"""Boxes, from which on a habit shows."""


def note_corners(images: Sequence[tuple[tuple[float, float] | None, list[dict[str, Any]]]], spot: Spot) -> None:
    """A remark where boxes look like x1, y1, x2, y2: as such they fit, and as x, y, width, height many don't.

    Args:
        images: (width, height) and annotations of each.
        spot: of the file.
    """
    total = fitting = reaching = 0
    for size, annotations in images:
        for annotation in annotations:
            bbox = annotation.get("bbox")
            if size is None or not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
                continue
            x, y, a, b = bbox
            total += 1
            fitting += x < a <= size[0] + 1 and y < b <= size[1] + 1
            reaching += x + a >= size[0] or y + b >= size[1]
    if total >= _FEWEST and fitting >= 0.95 * total and reaching >= 0.5 * total:
        text = f"{reaching} of {total} boxes end at the edge of their image or beyond, and all would fit as corners"
        spot.note("corners", f"{text}: are they x1, y1, x2, y2? COCO's are x, y, width, height")


def note_crowd_masks(images: Sequence[AnnotatedImage], spot: Spot) -> bool:
    """A remark where crowds in run lengths are many, as CVAT writes all that was painted: in COCO they are rare.

    Returns whether there is nothing else.
    """
    things = [thing for image in images for thing in image.objects]
    crowds = sum(thing.crowd and isinstance(thing.mask, RunLengths) for thing in things)
    single = any(not thing.crowd for thing in things)
    if crowds and (not single or (crowds >= 3 and crowds >= 0.2 * len(things))):
        text = f"{crowds} of {len(things)} objects are masks in pixels with iscrowd 1, as CVAT writes every brush mask"
        spot.note("crowd-masks", f"{text}, of single objects too; data.crowds=objects trains on them")
    return bool(crowds) and not single


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
