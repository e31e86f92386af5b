"""One XML file of Pascal VOC, parsed safely."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from visionlora.data.annotations.boxes import DROPPED, numbers
from visionlora.data.faults import Fault, Spot, shown

_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    """An object; `corners` are xmin, ymin, xmax, ymax as in the file."""

    name: str
    corners: tuple[float, ...]
    difficult: bool
    spot: Spot


@dataclass(frozen=True)
class VocFile:
    """The contents of one file. `size` is (width, height), None where the file has none."""

    filename: str
    size: tuple[float, float] | None
    objects: list[VocObject]


class _DoctypeError(Exception):
    pass


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        """A document type can define entities that blow up or name other files; VOC needs none."""
        raise _DoctypeError("it has a DOCTYPE, which annotations don't need")


def read_voc_xml(path: Path, faults: list[Fault]) -> VocFile | None:
    """None, noted, for a file that can't be used as a whole; an object with a fault is left out."""
    whole = Spot(path, "", faults)
    try:
        root = ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_Builder()))
    except (ElementTree.ParseError, _DoctypeError, ValueError, LookupError) as error:  # the last two: its encoding
        whole.note("broken-file", f"is no XML that can be read ({error}); correct or remove it", "image left out")
        return None
    if root.tag != "annotation":
        text = f"begins with <{root.tag}>, and Pascal VOC with <annotation>; correct or remove it"
        whole.note("broken-file", text, "image left out")
        return None
    size = None
    if (element := root.find("size")) is not None:
        sides = numbers([_number(element, side) for side in ("width", "height")], "<size>", whole, "image left out")
        if sides is None:
            return None
        size = (sides[0], sides[1])
    found = [_object(element, Spot(path, f"object {n}", faults)) for n, element in enumerate(root.iter("object"), 1)]
    return VocFile((root.findtext("filename") or "").strip(), size, [thing for thing in found if thing is not None])


def _object(element: ElementTree.Element, spot: Spot) -> VocObject | None:
    name = (element.findtext("name") or "").strip()
    if not name or not name.isprintable():
        spot.note("malformed", f"<name> is {shown(name)}; name the class", DROPPED)
        return None
    frame = element.find("bndbox")
    if frame is None:
        spot.note("malformed", "has no <bndbox>; add one", DROPPED)
        return None
    corners = numbers([_number(frame, side) for side in _SIDES], "<bndbox>", spot)
    if corners is None:
        return None
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        spot.note("malformed", f"<difficult> is {shown(difficult)}; it is 0 or 1", DROPPED)
        return None
    return VocObject(name, tuple(corners), difficult == "1", spot)


def _number(element: ElementTree.Element, name: str) -> object:
    """A float where the text is one, otherwise what is there."""
    text = element.findtext(name)
    try:
        return float(text or "")
    except ValueError:
        return text
