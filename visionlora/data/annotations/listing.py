"""Images and objects as a file lists them -> a data set: what LabelMe, CVAT, VIA and Label Studio share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from visionlora.data.annotations import polygons
from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject, RunLengths
from visionlora.data.annotations.boxes import DROPPED, check_box, numbers
from visionlora.data.annotations.polygons import check_polygons
from visionlora.data.annotations.reading import Options, Reading, check_image, extent_of, look_at, note_repeats
from visionlora.data.faults import Fault, Spot, shown
from visionlora.data.file_names import ImageFolder

_SIDES = 64
"""Corners of the polygon that an ellipse becomes."""


@dataclass(frozen=True)
class ListedObject:
    """An object as its file has it: a box, or an outline, or pixels.

    Attributes:
        name: of its class.
        spot: where it is written.
        corners: x1, y1, x2, y2.
        rings: polygons of x, y, x, y ...; where there are some, ``corners`` is None.
        mask: pixels of the whole image.
        unit: what coordinates are counted in: pixels, or per cent of the image's sides.
    """

    name: object
    spot: Spot
    corners: Sequence[float] | None = None
    rings: list[list[float]] | None = None
    mask: RunLengths | None = None
    unit: Literal["pixels", "percent"] = "pixels"


@dataclass(frozen=True)
class ListedImage:
    """An image as its file has it.

    Attributes:
        name: of the image file, as written; a Path is a file that was found already.
        spot: where it is written.
        size: (width, height) where it is written.
        objects: in it.
        fields: what else is said of it.
        base: what ``name`` is relative to, if that isn't the root.
    """

    name: object
    spot: Spot
    size: tuple[float, float] | None = None
    objects: list[ListedObject] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    base: Path | None = None


def read_listed(
    listed: Sequence[ListedImage],
    folder: ImageFolder,
    faults: list[Fault],
    options: Options,
    declared: Sequence[str] = (),
    elsewhere: str = "elsewhere",
) -> Reading:
    """Find the images, and fit the objects to them.

    Args:
        listed: in order.
        folder: where the images are.
        faults: to add to.
        options: of the reader.
        declared: classes in their order; those that only objects name follow, sorted. By default all are sorted.
        elsewhere: see ``ImageFolder.locate``.
    """
    images = [replace(image, objects=_named(image.objects)) for image in listed]
    found = {str(thing.name) for image in images for thing in image.objects}
    classes = [*declared, *sorted(found - set(declared))]
    labels = {name: index for index, name in enumerate(classes)}
    entries = _located(images, folder, elsewhere)
    facts = look_at(list(entries), options)
    annotated = []
    for path, entry in entries.items():
        frame = check_image(facts[path], entry.size, entry.spot, options)
        if frame is None:
            continue
        fitted = [_fitted(thing, labels[str(thing.name)], frame.width, frame.height) for thing in entry.objects]
        things = [thing for thing in fitted if thing is not None]
        note_repeats(things, entry.spot)
        size = facts[path].width, facts[path].height
        annotated.append(AnnotatedImage(path, *size, frame.turned(things), entry.fields))
    return Reading(AnnotatedImages(annotated, classes), faults, facts, folder.root)


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> list[float]:
    """A ring of the same area, turned clockwise as it is seen."""
    grown = math.sqrt(math.pi / (_SIDES / 2 * math.sin(2 * math.pi / _SIDES)))
    angles = [2 * math.pi * n / _SIDES for n in range(_SIDES)]
    points = [(grown * rx * math.cos(angle), grown * ry * math.sin(angle)) for angle in angles]
    return _turned(points, cx, cy, degrees)


def rotated_box(x1: float, y1: float, x2: float, y2: float, degrees: float, about: tuple[float, float]) -> list[float]:
    """The ring of a box that is turned clockwise, as it is seen, about a point."""
    x, y = about
    return _turned([(x1 - x, y1 - y), (x2 - x, y1 - y), (x2 - x, y2 - y), (x1 - x, y2 - y)], x, y, degrees)


def _turned(points: list[tuple[float, float]], cx: float, cy: float, degrees: float) -> list[float]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [value for x, y in points for value in (cx + x * cos - y * sin, cy + x * sin + y * cos)]


def _named(things: list[ListedObject]) -> list[ListedObject]:
    """Those with a class that can be printed, without spaces around it."""
    named = []
    for thing in things:
        name = str(thing.name).strip() if isinstance(thing.name, (str, int)) else ""
        if not name or not name.isprintable():
            thing.spot.note("malformed", f"the class is {shown(thing.name)}; name it", DROPPED)
        else:
            named.append(replace(thing, name=name))
    return named


def _located(images: list[ListedImage], folder: ImageFolder, elsewhere: str) -> dict[Path, ListedImage]:
    """File -> entry; the objects of a second entry for a file are added to the first's."""
    entries: dict[Path, ListedImage] = {}
    first_path: dict[Path, Path] = {}
    for image in images:
        path = (
            image.name if isinstance(image.name, Path) else folder.locate(image.name, image.spot, image.base, elsewhere)
        )
        if path is None:
            continue
        path = first_path.setdefault(path.resolve(), path)
        if (first := entries.get(path)) is None:
            entries[path] = image
            continue
        before = f"{first.spot.file.name}{', ' * bool(first.spot.where)}{first.spot.where}"
        text = f"is about {path.name}, as {before} is; list an image once, with all objects"
        image.spot.note("duplicate-file", text, "the two merged")
        entries[path] = replace(first, objects=[*first.objects, *image.objects])
    return entries


def _fitted(thing: ListedObject, label: int, width: int, height: int) -> LabelledObject | None:
    """None, noted, for an object that is none."""
    spot = thing.spot
    if thing.mask is not None:
        if (thing.mask.height, thing.mask.width) != (height, width):
            size = f"{thing.mask.width} x {thing.mask.height}"
            spot.note("rle-size", f"the mask is for {size}, the image has {width} x {height}; draw it again", DROPPED)
            return None
        return LabelledObject(label, extent_of(thing.mask), thing.mask, source=spot.where)
    if thing.rings is not None:
        rings = [_in_pixels(ring, thing, width, height) for ring in thing.rings]
        outline = check_polygons(rings, width, height, spot)
        if outline is None:
            return None
        box = check_box(polygons.extent(outline), width, height, spot)
        return None if box is None else LabelledObject(label, box, outline, source=spot.where)
    corners = numbers(thing.corners, "the box", spot)
    if corners is None:
        return None
    box = check_box(_in_pixels(corners, thing, width, height), width, height, spot)
    return None if box is None else LabelledObject(label, box, source=spot.where)


def _in_pixels(values: Sequence[float], thing: ListedObject, width: int, height: int) -> list[float]:
    """Of what are no numbers, nothing is made: whoever checks them names them."""
    if thing.unit == "pixels" or any(not isinstance(value, (int, float)) for value in values):
        return list(values)
    return [value * (height if index % 2 else width) / 100 for index, value in enumerate(values)]
