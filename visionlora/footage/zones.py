"""Areas and lines of a camera's picture, and who is in them or crosses them: counted by ``supervision``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from visionlora.errors import InputError
from visionlora.footage.tracking import import_tracking

_FORGET = 10.0
"""Seconds after which an object that has left a zone, and is back, has entered once more."""
_CONFIRM = 2
"""Frames in which an object must be beyond a line before it has crossed it."""


@dataclass(frozen=True)
class Place:
    """A zone, of three corners or more, or a line, from the first point to the second.

    Attributes:
        name: its own.
        points: x and y in pixels.
    """

    name: str
    points: tuple[tuple[int, int], ...]


def read_place(text: str, option: str) -> Place:
    """``NAME=x,y,x,y,...`` as it is given with ``--zone`` or ``--line``.

    Raises:
        InputError: it is not that, a zone has fewer than three points or no area, or a line not two different ones.
    """
    name, _, numbers = text.partition("=")
    try:
        values = [int(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    points = tuple(zip(values[::2], values[1::2], strict=False))
    if not name.strip() or len(values) < 4 or len(values) % 2:
        raise InputError(f"{option} {text}: is not NAME=x,y,x,y,... with whole numbers of pixels")
    if option == "--line" and (len(points) != 2 or points[0] == points[1]):
        raise InputError(f"{option} {text}: a line has two different points")
    if option == "--zone" and (len(points) < 3 or not _area(points)):
        raise InputError(f"{option} {text}: a zone has three corners or more, not in one line")
    return Place(name.strip(), points)


def _area(points: Sequence[tuple[int, int]]) -> float:
    """Twice the polygon's area in pixels, by the shoelace formula."""
    following = (*points[1:], points[0])
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, following, strict=True)))


@dataclass
class ZoneCount:
    """Of a zone: objects in it in the last frame, at most in a frame, and, with tracks, that came in so far."""

    now: int = 0
    most: int = 0
    entered: int = 0
    inside: dict[int, float] = field(default_factory=dict)

    def update(self, ids: Sequence[int | None], seconds: float) -> None:
        """Take in who is there."""
        self.now, self.most = len(ids), max(self.most, len(ids))
        for one in ids:
            if one is not None:
                self.entered += one not in self.inside
                self.inside[one] = seconds
        self.inside = {one: last for one, last in self.inside.items() if seconds - last <= _FORGET}


class Counting:
    """Counts objects by where they stand: the middle of their box's lower edge.

    Args:
        zones, lines: of different names.
        size: (width, height) of the frames in pixels.

    Raises:
        InputError: ``supervision`` is missing, two have one name, or one lies outside of the picture.
    """

    def __init__(self, zones: Sequence[Place], lines: Sequence[Place], size: tuple[int, int]) -> None:
        self._supervision = sv = import_tracking()[1]
        self.zones, self.lines = list(zones), list(lines)
        names = [place.name for place in (*zones, *lines)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"two zones or lines are called '{twice[0]}'; give each a name of its own")
        for place in (*zones, *lines):
            if not all(0 <= x <= size[0] and 0 <= y <= size[1] for x, y in place.points):
                raise InputError(f"'{place.name}' lies outside of the picture's {size[0]} x {size[1]} pixels")
        anchors = [sv.Position.BOTTOM_CENTER]
        self._areas = [sv.PolygonZone(np.array(zone.points), anchors) for zone in zones]
        self._borders = [
            sv.LineZone(*(sv.Point(*point) for point in line.points), anchors, minimum_crossing_threshold=_CONFIRM)
            for line in lines
        ]
        self.counts = {zone.name: ZoneCount() for zone in zones}

    def update(
        self, boxes: np.ndarray, ids: Sequence[int | None] | None, seconds: float
    ) -> tuple[list[list[str]], list[dict[str, str]]]:
        """Take in a frame.

        Args:
            boxes: (N, 4) as x1, y1, x2, y2 in pixels.
            ids: of the objects, None for those without; None without tracks, and then no line is crossed.
            seconds: of the frame.

        Returns:
            for each box the names of the zones that it is in, and of the lines that it crosses in this frame, with
            ``in`` or ``out``.
        """
        numbers = [None] * len(boxes) if ids is None else list(ids)
        detections: Any = self._supervision.Detections(
            xyxy=np.asarray(boxes, np.float64).reshape(-1, 4),
            class_id=np.zeros(len(boxes), int),
            tracker_id=np.array([-1 if number is None else number for number in numbers], int),
        )
        inside: list[list[str]] = [[] for _ in boxes]
        crossed: list[dict[str, str]] = [{} for _ in boxes]
        for zone, area in zip(self.zones, self._areas, strict=True):
            there = area.trigger(detections)
            self.counts[zone.name].update([one for one, is_in in zip(numbers, there, strict=True) if is_in], seconds)
            for names, is_in in zip(inside, there, strict=True):
                if is_in:
                    names.append(zone.name)
        if ids is not None:
            for line, border in zip(self.lines, self._borders, strict=True):
                for ways, went_in, went_out in zip(crossed, *border.trigger(detections), strict=True):
                    if went_in or went_out:
                        ways[line.name] = "in" if went_in else "out"
        return inside, crossed

    def crossings(self) -> dict[str, tuple[int, int]]:
        """Line -> how many crossed it in, and out."""
        return {
            line.name: (border.in_count, border.out_count)
            for line, border in zip(self.lines, self._borders, strict=True)
        }

    def summary(self) -> list[str]:
        """A line for each zone and line."""
        found = []
        for name, count in self.counts.items():
            entered = f", {count.entered} came in" if count.entered else ""
            found.append(f"zone {name}: {count.now} at last, {count.most} at most{entered}")
        return found + [f"line {name}: {ins} in, {outs} out" for name, (ins, outs) in self.crossings().items()]
