"""One XML file of Pascal VOC, or of what others write in its way."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from visionlora.data.annotations.boxes import DROPPED, numbers
from visionlora.data.annotations.listing import rotated_box
from visionlora.data.annotations.xml_file import BrokenXmlError, number, read_xml
from visionlora.data.faults import Fault, Spot, shown

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_TURNED = ("cx", "cy", "w", "h", "angle")


@dataclass(frozen=True)
class VocObject:
    """An object: ``corners`` are xmin, ymin, xmax, ymax as in the file, or ``ring`` its outline if there are none."""

    name: str
    corners: tuple[float, ...] | None
    difficult: bool
    spot: Spot
    ring: tuple[float, ...] | None = None


@dataclass(frozen=True)
class VocFile:
    """The contents of one file. ``size`` is (width, height), None where the file has none."""

    filename: str
    size: tuple[float, float] | None
    objects: list[VocObject]


def read_voc_xml(path: Path, faults: list[Fault]) -> VocFile | None:
    """None, noted, for a file that can't be used as a whole; an object with a fault is left out.

    An object without a <bndbox> may have an outline, as Roboflow and LabelMe write it, or a turned box (roLabelImg).
    """
    whole = Spot(path, "", faults)
    try:
        root = read_xml(path)
    except BrokenXmlError as error:
        whole.note("broken-file", f"is no XML that can be read ({error}); correct or remove it", "image left out")
        return None
    if root.tag != "annotation":
        text = f"begins with <{root.tag}>, and Pascal VOC with <annotation>; correct or remove it"
        whole.note("broken-file", text, "image left out")
        return None
    size, element, sides_of = None, root.find("size"), ("width", "height")
    if element is None:
        element, sides_of = root.find("imagesize"), ("ncols", "nrows")  # LabelMe's XML
    if element is not None:
        sides = numbers([number(element, side) for side in sides_of], "<size>", whole, "image left out")
        if sides is None:
            return None
        size = (sides[0], sides[1])
        if size == (0, 0):  # tools that were not told it
            size = None
    found = [_object(element, Spot(path, f"object {n}", faults)) for n, element in enumerate(root.iter("object"), 1)]
    return VocFile((root.findtext("filename") or "").strip(), size, [thing for thing in found if thing is not None])


def _object(element: ElementTree.Element, spot: Spot) -> VocObject | None:
    if (element.findtext("deleted") or "0").strip() == "1":
        spot.note("no-shape", "is marked <deleted>: not read")
        return None
    name = (element.findtext("name") or "").strip()
    if not name or not name.isprintable():
        spot.note("malformed", f"<name> is {shown(name)}; name the class", DROPPED)
        return None
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        spot.note("malformed", f"<difficult> is {shown(difficult)}; it is 0 or 1", DROPPED)
        return None
    frame = element.find("bndbox")
    if frame is None:
        ring = _outline(element, spot)
        return None if ring is None else VocObject(name, None, difficult == "1", spot, tuple(ring))
    corners = numbers([number(frame, side) for side in _SIDES], "<bndbox>", spot)
    return None if corners is None else VocObject(name, tuple(corners), difficult == "1", spot)


def _outline(element: ElementTree.Element, spot: Spot) -> list[float] | None:
    """x, y, x, y ... of an object without a <bndbox>, or None, noted."""
    if (turned := element.find("robndbox")) is not None:
        values = numbers([number(turned, key) for key in _TURNED], "<robndbox>", spot)
        if values is None:
            return None
        cx, cy, w, h, angle = values
        spot.note(
            "rotated", f"is turned by {math.degrees(angle):.3g} degrees: read as an outline, and the box around it"
        )
        return rotated_box(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, math.degrees(angle), (cx, cy))
    polygon = element.find("polygon")
    if polygon is None:
        spot.note("malformed", "has no <bndbox>; add one", DROPPED)
        return None
    points = [(number(point, "x"), number(point, "y")) for point in polygon.findall("pt")]
    while polygon.find(f"x{len(points) + 1}") is not None:  # <x1> <y1> <x2> ...
        points.append((number(polygon, f"x{len(points) + 1}"), number(polygon, f"y{len(points) + 1}")))
    spot.note("assumed", "has no <bndbox>: its polygon is read, and the box around it")
    return numbers([value for point in points for value in point], "<polygon>", spot)
