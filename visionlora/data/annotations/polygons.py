"""Polygons: checked against their image, clipped, measured."""

from visionlora.data.annotations.annotated import Box, Polygons
from visionlora.data.annotations.boxes import DROPPED, NOISE, note_overhang, numbers
from visionlora.data.faults import Spot, shown

Ring = tuple[float, ...]


def check_polygons(rings: object, width: float, height: float, spot: Spot) -> Polygons | None:
    """COCO's list of [x1, y1, x2, y2 ...] in pixels -> the part inside the image, or None for a fault.

    As for boxes, up to one pixel beyond the image is a remark, and more is an error even though the part
    inside is returned.
    """
    if not isinstance(rings, list) or not all(isinstance(ring, list) for ring in rings):
        advice = "it should be a list of polygons, each a list of x, y, x, y ..."
        spot.note("malformed", f"the segmentation is {shown(rings)}; {advice}", DROPPED)
        return None
    clipped = []
    beyond = 0.0
    for ring in rings:
        points = _check_ring(ring, spot)
        if points is None:
            return None
        xs, ys = points[::2], points[1::2]
        over = max(-min(xs), -min(ys), max(xs) - width, max(ys) - height)
        inside = tuple(points) if over <= 0 else clip_ring(tuple(points), width, height)
        if over <= 0 or _area(inside) > 0:
            clipped.append(inside)
        beyond = max(beyond, over)
    image = f"the image of {width:g} x {height:g}"
    if sum(_area(ring) for ring in clipped) < NOISE:
        if beyond > NOISE:
            spot.note("mask-outside", f"the mask lies outside {image}; correct or remove it", DROPPED)
        else:
            spot.note("zero-area", "the mask has no area; draw it again or remove it", DROPPED)
        return None
    note_overhang(beyond, "mask-outside", "the mask", image, spot)
    return Polygons(tuple(clipped))


def clip_ring(ring: Ring, width: float, height: float) -> Ring:
    """The part of a polygon inside x 0 to width, y 0 to height, empty if there is none.

    Sutherland and Hodgman (1974). Where a concave polygon falls into pieces, they stay joined along the edge
    of the image, which encloses the same area.
    """
    points = list(zip(ring[::2], ring[1::2], strict=True))
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        kept: list[tuple[float, float]] = []
        for before, point in zip(points[-1:] + points[:-1], points, strict=True):
            here, there = sign * (point[axis] - limit), sign * (before[axis] - limit)
            if (here >= 0) != (there >= 0):
                share = there / (there - here)
                crossing = [b + share * (p - b) for b, p in zip(before, point, strict=True)]
                crossing[axis] = float(limit)  # exactly on the edge, whatever the rounding
                kept.append((crossing[0], crossing[1]))
            if here >= 0:
                kept.append(point)
        points = kept
    return tuple(value for point in points for value in point)


def extent(polygons: Polygons) -> Box:
    """The box around all of it."""
    xs = [x for ring in polygons.rings for x in ring[::2]]
    ys = [y for ring in polygons.rings for y in ring[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def area(polygons: Polygons) -> float:
    """Pixels enclosed, where rings overlap or a ring crosses itself not exactly."""
    return sum(_area(ring) for ring in polygons.rings)


def _check_ring(ring: object, spot: Spot) -> list[float] | None:
    points = numbers(ring, "the polygon", spot)
    if points is None:
        return None
    if len(points) % 2:
        spot.note("polygon-odd", f"a polygon has {len(points)} coordinates; they come in pairs of x and y", DROPPED)
        return None
    if len(points) < 6:
        spot.note("polygon-points", f"a polygon has {len(points) // 2} points; it needs at least three", DROPPED)
        return None
    return points


def _area(ring: Ring) -> float:
    """The shoelace formula."""
    xs, ys = ring[::2], ring[1::2]
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2
