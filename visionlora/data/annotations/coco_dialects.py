"""Ways of writing COCO's boxes and masks that are not COCO's, and can't be mistaken: each is taken with a remark."""

from typing import Any

from visionlora.data.annotations.boxes import DROPPED, numbers
from visionlora.data.faults import Spot, shown

_KEYS = ("x", "y", "width", "height")


def read_bbox(given: object, spot: Spot) -> tuple[float, float, float, float] | None:
    """x1, y1, x2, y2 of ``[x, y, width, height]``, or of an object with those keys; None, noted, for a fault."""
    if isinstance(given, dict) and all(key in given for key in _KEYS):
        spot.note("assumed", "the bbox is an object with x, y, width and height: read as COCO's list of them")
        given = [given[key] for key in _KEYS]
    values = numbers(given, "the bbox", spot)
    if values is None:
        return None
    if len(values) != 4:
        spot.note("malformed", f"the bbox has {len(values)} values; it is x, y, width, height", DROPPED)
        return None
    x, y, width, height = values
    return x, y, x + width, y + height


def outlines(given: Any, spot: Spot) -> Any:
    """COCO's run lengths or list of polygons; what is neither, as it stands."""
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], dict) and "counts" in given[0]:
        spot.note("assumed", "the segmentation is a list of run lengths, with one in it: that is taken")
        return given[0]
    if not isinstance(given, list) or not given:
        return given
    rings = given
    if all(_is_number(value) for value in given) and len(given) >= 6:
        spot.note("assumed", "the segmentation is one polygon, not in a list: it is taken")
        rings = [given]
    elif len(given) >= 3 and all(_point(value) for value in given):
        spot.note("assumed", "the segmentation is one polygon, of points in pairs: read as x, y, x, y ...")
        return [_flat(given)]
    if all(isinstance(ring, list) and ring and all(_point(point) for point in ring) for ring in rings):
        spot.note("assumed", f"the polygon's points are in pairs, as in {shown(rings[0][0])}: read as x, y, x, y ...")
        return [_flat(ring) for ring in rings]
    return rings


def _point(value: object) -> list[Any] | None:
    """x and y of a pair, or of an object with these keys."""
    if isinstance(value, dict) and {"x", "y"} <= value.keys():
        value = [value["x"], value["y"]]
    return value if isinstance(value, list) and len(value) == 2 and all(_is_number(side) for side in value) else None


def _flat(points: list[Any]) -> list[Any]:
    return [side for point in points for side in _point(point) or ()]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
