"""VGG Image Annotator (VIA): regions of images, versions 1 to 3."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from visionlora.data.annotations.boxes import DROPPED, numbers
from visionlora.data.annotations.json_file import read_json
from visionlora.data.annotations.listing import ListedImage, ListedObject, ellipse, read_listed
from visionlora.data.annotations.reading import PLAIN, Options, Reading
from visionlora.data.faults import Fault, Spot, listed, shown
from visionlora.data.file_names import ImageFolder
from visionlora.errors import InputError

_NO_AREA = {"point", "polyline", "line"}
_CLASS_NAMES = ("class", "label", "category", "type", "name", "object", "object_name", "class_name", "classname")
_VIA3_SHAPES = {
    1: "point",
    2: "rect",
    3: "circle",
    4: "ellipse",
    5: "line",
    6: "polyline",
    7: "polygon",
    8: "rect",  # drawn by its extreme points
    9: "circle",
}

Region = tuple[str, dict[str, Any], dict[str, Any], Spot]
"""Where it is written, its shape by the names of VIA 2, its attributes."""


def read_via(path: Path, root: Path | None = None, options: Options = PLAIN) -> Reading:
    """Read VIA's regions as JSON, or a project of VIA 2 or 3.

    Rectangles become boxes; polygons, circles and ellipses outlines; points and lines no objects, with a remark. The
    class is a region's only attribute, or the one called class, label, category, type or name. Images are relative
    to ``root``, else to the file's folder, and found by name below it. An image without regions is a negative.

    Raises:
        InputError: no JSON, no regions as VIA writes them, or none with an attribute that can be the class.
    """
    content = read_json(path)
    faults: list[Fault] = []
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no file of VIA, which holds images by name")
    files = list(
        _third(content, path, faults) if "metadata" in content and "view" in content else _second(content, path, faults)
    )
    attribute = _class_attribute([region for _, _, regions in files for region in regions], path, faults)
    entries = []
    for name, spot, regions in files:
        found = [_object(region, attribute) for region in regions]
        entries.append(ListedImage(name, spot, None, [thing for thing in found if thing is not None]))
    folder = root or path.parent
    images = next((folder / name for name in ("images", "Images") if root is None and (folder / name).is_dir()), folder)
    return read_listed(entries, ImageFolder(images, folder), faults, options, (), "other-path")


def _second(content: dict[str, Any], path: Path, faults: list[Fault]) -> Iterator[tuple[object, Spot, list[Region]]]:
    """Of VIA 1 and 2: name of the file, its spot, its regions."""
    images = content.get("_via_img_metadata", content)
    if not isinstance(images, dict):
        raise InputError(f"{path}: '_via_img_metadata' is {shown(images)}; it should hold images by name")
    for key, image in images.items():
        spot = Spot(path, f"image {shown(key)}", faults)
        regions = image.get("regions") if isinstance(image, dict) else None
        regions = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 numbers them
        if not isinstance(image, dict) or not isinstance(regions, list):
            spot.note("malformed", f"is {shown(image)}; an image has a 'filename' and 'regions'", "image left out")
            continue
        found: list[Region] = []
        for number, region in enumerate(regions):
            place = Spot(path, f"{spot.where}, region {number}", faults)
            shape = region.get("shape_attributes") if isinstance(region, dict) else None
            if not isinstance(shape, dict):
                place.note("malformed", f"is {shown(region)}; a region has 'shape_attributes'", DROPPED)
                continue
            attributes = region.get("region_attributes")
            found.append((str(shape.get("name")), shape, attributes if isinstance(attributes, dict) else {}, place))
        yield image.get("filename"), spot, found


def _third(content: dict[str, Any], path: Path, faults: list[Fault]) -> Iterator[tuple[object, Spot, list[Region]]]:
    """Of VIA 3: files, views of them, and metadata of views."""
    files, views, metadata = (content.get(key) for key in ("file", "view", "metadata"))
    if not isinstance(files, dict) or not isinstance(views, dict) or not isinstance(metadata, dict):
        raise InputError(f"{path}: a project of VIA 3 holds 'file', 'view' and 'metadata' by number")
    attributes = content.get("attribute")
    regions: dict[str, list[Region]] = {number: [] for number in files}
    for key, item in metadata.items():
        spot = Spot(path, f"metadata {shown(key)}", faults)
        view = views.get(str(item.get("vid"))) if isinstance(item, dict) else None
        number = str(view["fid_list"][0]) if isinstance(view, dict) and view.get("fid_list") else ""
        if number not in regions:
            spot.note("no-image", "belongs to no file; add it or remove this", DROPPED)
            continue
        if not item.get("xy"):
            continue  # about the whole file
        values = numbers(item["xy"], "xy", spot)
        if values is None:
            continue
        kind = _VIA3_SHAPES.get(round(values[0]), "unknown")
        named = _named_values(item.get("av"), attributes if isinstance(attributes, dict) else {})
        regions[number].append((kind, _shape(kind, values[1:]), named, spot))
    for number, file in files.items():
        name = file.get("fname") if isinstance(file, dict) else None
        yield name, Spot(path, f"file {shown(number)}", faults), regions[number]


def _shape(kind: str, values: list[float]) -> dict[str, Any]:
    """VIA 3's numbers by VIA 2's names."""
    if kind in ("polygon", "polyline"):
        return {"all_points_x": values[::2], "all_points_y": values[1::2]}
    keys = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}
    return dict(zip(keys.get(kind, ()), values, strict=False))


def _named_values(values: object, attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes by name, and the options of a choice by theirs."""
    named = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        told = attributes.get(key)
        attribute = told if isinstance(told, dict) else {}
        choices = attribute.get("options")
        named[str(attribute.get("aname", key))] = choices.get(value, value) if isinstance(choices, dict) else value
    return named


def _class_attribute(regions: list[Region], path: Path, faults: list[Fault]) -> str:
    counts = Counter(name for _, _, attributes, _ in regions for name, value in attributes.items() if _value(value))
    if not regions:
        return ""
    if not counts:
        raise InputError(
            f"{path}: no region has an attribute with a value, so nothing says what the objects are; "
            "define one in VIA, such as class, and set it"
        )
    if len(counts) == 1:
        return next(iter(counts))
    known = [name for wanted in _CLASS_NAMES for name in counts if name.lower().strip().replace(" ", "_") == wanted]
    if not known:
        raise InputError(f"{path}: regions have {listed(counts)}, and none says that it is the class; call it class")
    others = [name for name in counts if name != known[0]]
    text = f"the class is the attribute {shown(known[0])}; {listed(others)} are not read"
    Spot(path, "", faults).note("assumed", text)
    return known[0]


def _value(value: object) -> str:
    """An attribute's text; of checkboxes the one that is checked."""
    if isinstance(value, dict):
        checked = [str(name) for name, on in value.items() if on]
        return checked[0] if len(checked) == 1 else ""
    return "" if value is None or isinstance(value, (list, bool)) else str(value).strip()


def _object(region: Region, attribute: str) -> ListedObject | None:
    kind, shape, attributes, spot = region
    if kind in _NO_AREA:
        spot.note("no-shape", f"is a {kind}, which has no area: not read")
        return None
    name = _value(attributes.get(attribute))
    if not name:
        spot.note("malformed", f"{shown(attribute)} is {shown(attributes.get(attribute))}; say what it is", DROPPED)
        return None
    if kind in ("polygon", "polyline"):
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            spot.note("malformed", "a polygon has all_points_x and all_points_y, of one length", DROPPED)
            return None
        return ListedObject(name, spot, rings=[[value for point in zip(xs, ys, strict=True) for value in point]])
    keys = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}
    if kind not in keys:
        spot.note(
            "malformed", f"the shape is {shown(kind)}, which is not known; draw a polygon or a rectangle", DROPPED
        )
        return None
    values = numbers([shape.get(key) for key in keys[kind]], f"the {kind}", spot)
    if values is None:
        return None
    if kind == "rect":
        x, y, width, height = values
        return ListedObject(name, spot, (x, y, x + width, y + height))
    turn = shape.get("theta", 0)
    degrees = float(turn) * 57.29577951308232 if isinstance(turn, (int, float)) else 0.0
    radii = (values[2], values[-1])
    return ListedObject(name, spot, rings=[ellipse(values[0], values[1], *radii, degrees)])
