"""A detector's findings in a camera's successive frames: tracked, and counted in zones and at lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from visionlora.footage.tracking import Tracks
from visionlora.footage.zones import Counting, Place
from visionlora.tasks.detection.figures import draw_detections
from visionlora.tasks.detection.prediction import ImageObjects
from visionlora.tasks.drawing import class_color
from visionlora.tasks.protocols import Prediction

_FIRST_COLOR = 10
"""Zones and lines have colours of their own, behind those of the first classes."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for of footage.

    Attributes:
        track: give objects numbers; lines need them.
        zones, lines: to count at.
    """

    track: bool = False
    zones: tuple[Place, ...] = ()
    lines: tuple[Place, ...] = ()

    def __bool__(self) -> bool:
        return self.track or bool(self.zones or self.lines)


@dataclass(frozen=True)
class WatchedObjects(Prediction):
    """What was found in a frame, with each object's number, zones, and the lines that it crosses.

    Attributes:
        objects: what the detector found.
        ids: numbers of the objects, None for one that was seen once so far; None without tracks.
        inside: for each object the names of its zones; None without zones.
        crossed: for each object line -> ``in`` or ``out``; None without lines.
        picture: the zones and lines with what is counted there so far.
    """

    objects: ImageObjects
    ids: list[int | None] | None
    inside: list[list[str]] | None
    crossed: list[dict[str, str]] | None
    picture: tuple[tuple[Place, str], ...] = ()

    def entries(self, image_id: str) -> list[dict[str, Any]]:
        """COCO's results, with ``track_id``, ``zones`` and ``crossed``."""
        found = self.objects.entries(image_id)
        for key, values in (("track_id", self.ids), ("zones", self.inside), ("crossed", self.crossed)):
            if values is not None:
                found = [{**entry, key: value} for entry, value in zip(found, values, strict=True)]
        return found

    def tally(self) -> Mapping[str, float]:
        """Class -> how many objects."""
        return self.objects.tally()

    def drawn(self, image: np.ndarray) -> np.ndarray:
        """The image with zones, lines and their counts, and boxes with numbers."""
        found = self.objects.found
        names = None if self.ids is None else ["" if one is None else f"#{one}" for one in self.ids]
        return draw_detections(
            draw_places(image, self.picture),
            *(found["boxes"], found["labels"], found["scores"], found.get("masks")),
            self.objects.classes,
            names,
        )


class Watch:
    """Takes in the frames of one camera or recording, in their order.

    Args:
        wanted: what is asked for.
        fps: frames per second that will be seen, about.
        size: (width, height) of the frames in pixels.

    Raises:
        InputError: a package is missing, or a zone or line can't be in such frames.
    """

    def __init__(self, wanted: Wanted, fps: float, size: tuple[int, int]) -> None:
        self._wanted = wanted
        self._tracks = Tracks(fps) if wanted.track or wanted.lines else None
        counted = bool(wanted.zones or wanted.lines)
        self._counting = Counting(wanted.zones, wanted.lines, size) if counted else None

    def look(self, objects: ImageObjects, seconds: float) -> WatchedObjects:
        """What was found in the next frame, with what the frames before say of it."""
        boxes, scores = objects.found["boxes"].numpy(), objects.found["scores"].numpy()
        ids = None if self._tracks is None else self._tracks.update(boxes, scores, seconds)
        if self._counting is None:
            return WatchedObjects(objects, ids, None, None)
        inside, crossed = self._counting.update(boxes, ids, seconds)
        zones, lines = self._wanted.zones, self._wanted.lines
        return WatchedObjects(
            objects, ids, inside if zones else None, crossed if lines else None, tuple(self._picture(self._counting))
        )

    def summary(self) -> list[str]:
        """A line for each zone and line."""
        return [] if self._counting is None else self._counting.summary()

    def _picture(self, counting: Counting) -> list[tuple[Place, str]]:
        crossings = counting.crossings()
        zones = [(zone, f"{zone.name} {counting.counts[zone.name].now}") for zone in self._wanted.zones]
        lines = [(line, "{} {} in {} out".format(line.name, *crossings[line.name])) for line in self._wanted.lines]
        return zones + lines


def draw_places(image: np.ndarray, places: Sequence[tuple[Place, str]]) -> np.ndarray:
    """Draw zones and lines into an image, each with its text.

    Args:
        image: (H, W, 3) uint8 RGB, left as it is.

    Returns:
        (H, W, 3) uint8.
    """
    if not places:
        return image
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    width = max(2, round(max(image.shape[:2]) / 320))
    for number, (place, text) in enumerate(places):
        color = class_color(_FIRST_COLOR + number)
        closed = len(place.points) > 2
        draw.line([*place.points, *place.points[:1]] if closed else list(place.points), fill=color, width=width)
        draw.text(place.points[0], text, fill=color, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(canvas).copy()
