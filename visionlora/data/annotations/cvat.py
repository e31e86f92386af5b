"""CVAT's own XML, "CVAT for images 1.1": one file for all images."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from visionlora.data.annotations.annotated import RunLengths
from visionlora.data.annotations.boxes import DROPPED, numbers
from visionlora.data.annotations.listing import ListedImage, ListedObject, ellipse, read_listed, rotated_box
from visionlora.data.annotations.masks import encode
from visionlora.data.annotations.part_names import canonical
from visionlora.data.annotations.reading import PLAIN, Options, Reading
from visionlora.data.annotations.xml_file import BrokenXmlError, as_number, read_xml
from visionlora.data.faults import Fault, Spot, listed, shown
from visionlora.data.file_names import ImageFolder
from visionlora.data.peeking import folders_in
from visionlora.errors import InputError

_NO_AREA = {"polyline", "points", "cuboid", "skeleton", "tag"}
_SHAPES = {"box", "polygon", "ellipse", "mask"}
_SIDES = ("xtl", "ytl", "xbr", "ybr")


def read_cvat(path: Path, root: Path | None = None, options: Options = PLAIN) -> Reading:
    """Read an annotations.xml with images in ``root``, or in the file's folder: ``images``, or anywhere below.

    Boxes (turned ones become outlines), polygons, ellipses and masks are objects, the lower ``z_order`` first;
    lines, points, cuboids, skeletons and tags are none, with a remark. Classes are in the order of the labels that
    the file declares. A ``subset`` becomes ``fields["part"]``.

    Raises:
        InputError: no XML that can be read, another root element, tracks of a video, or no images.
    """
    try:
        document = read_xml(path)
    except BrokenXmlError as error:
        raise InputError(f"{path}: is no XML that can be read ({error}); export it again") from error
    images = document.findall("image")
    if document.find("track") is not None and not images:
        raise InputError(
            f"{path}: is CVAT for video 1.1, tracks over frames without image files; "
            "export the task as 'CVAT for images 1.1' or 'COCO 1.0', with 'save images'"
        )
    if document.tag != "annotations" or not images:
        raise InputError(f"{path}: has no <image>, as CVAT for images 1.1 has; export the task so, or as COCO 1.0")
    faults: list[Fault] = []
    where = ImageFolder(root or _root(path.parent), root or path.parent)
    entries = [_image(element, n, path, faults) for n, element in enumerate(images)]
    # names have no folder for the subset, and of a video's frames no ending
    return read_listed(entries, where, faults, options, _declared(document), "other-path")


def _root(folder: Path) -> Path:
    return next((child for child in folders_in(folder) if child.name.lower() == "images"), folder)


def _declared(document: ElementTree.Element) -> list[str]:
    """Names of labels that can be drawn; those of tags and skeletons' points are no classes."""
    names = []
    for label in document.iter("label"):
        name, kind = (label.findtext("name") or "").strip(), label.findtext("type") or "any"
        if name and kind not in _NO_AREA and label.findtext("parent") is None:
            names.append(name)
    return list(dict.fromkeys(names))


def _image(element: ElementTree.Element, index: int, path: Path, faults: list[Fault]) -> ListedImage:
    spot = Spot(path, f"image {element.get('id', index)}", faults)
    given = [as_number(element.get(side)) for side in ("width", "height")]
    sides = None if given == [None, None] else numbers(given, "[width, height]", spot, "the file's size taken")
    size = None if sides is None else (sides[0], sides[1])
    subset = element.get("subset")
    fields = {"part": canonical(subset)} if subset and subset.lower() != "default" else {}
    things = []
    left: list[str] = []
    shapes = sorted(element, key=lambda shape: _order(shape.get("z_order")))  # stable
    for number, shape in enumerate(shapes):
        if shape.tag in _NO_AREA:
            left.append(shape.tag)
        elif shape.tag in _SHAPES:
            thing = _object(shape, size, Spot(path, f"{spot.where}, {shape.tag} {number}", faults))
            if thing is not None:
                things.append(thing)
    if left:
        spot.note("no-shape", f"has {len(left)} shapes without an area ({listed(sorted(set(left)))}): not read")
    return ListedImage(element.get("name"), spot, size, things, fields)


def _order(text: str | None) -> float:
    value = as_number(text)
    return value if isinstance(value, float) else 0.0


def _object(shape: ElementTree.Element, size: tuple[float, float] | None, spot: Spot) -> ListedObject | None:
    name = shape.get("label")
    if shape.tag == "polygon":
        text = (shape.get("points") or "").replace(";", ",")
        values = numbers([as_number(part) for part in text.split(",")], "the polygon", spot)
        return None if values is None else ListedObject(name, spot, rings=[values])
    if shape.tag == "mask":
        mask = _mask(shape, size, spot)
        return None if mask is None else ListedObject(name, spot, mask=mask)
    wanted = _SIDES if shape.tag == "box" else ("cx", "cy", "rx", "ry")
    values = numbers([as_number(shape.get(key)) for key in wanted], f"the {shape.tag}", spot)
    turn = numbers([as_number(shape.get("rotation", "0"))], "the rotation", spot)
    if values is None or turn is None:
        return None
    a, b, c, d = values
    if shape.tag == "ellipse":
        return ListedObject(name, spot, rings=[ellipse(a, b, c, d, turn[0])])
    if not turn[0]:
        return ListedObject(name, spot, (a, b, c, d))
    centre = ((a + c) / 2, (b + d) / 2)
    spot.note("rotated", f"is turned by {turn[0]:g} degrees: read as an outline, and the upright box around it")
    return ListedObject(name, spot, rings=[rotated_box(a, b, c, d, turn[0], centre)])


def _mask(shape: ElementTree.Element, size: tuple[float, float] | None, spot: Spot) -> RunLengths | None:
    """Runs of background, object, background ... row by row, in a window of the image."""
    keys = ("left", "top", "width", "height")
    window = numbers([as_number(shape.get(key)) for key in keys], "the mask", spot)
    runs = numbers([as_number(run) for run in (shape.get("rle") or "").split(",")], "the mask's rle", spot)
    if window is None or runs is None:
        return None
    left, top, width, height = (round(value) for value in window)
    if size is None or size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or 0):
        spot.note("malformed", "the image of a mask needs its width and height", DROPPED)
        return None
    whole = round(size[0]), round(size[1])
    if min(left, top) < 0 or min(width, height) < 1 or left + width > whole[0] or top + height > whole[1]:
        text = f"the mask of {width} x {height} at {left}, {top} reaches beyond the image of {whole[0]} x {whole[1]}"
        spot.note("mask-outside", f"{text}; draw it again", DROPPED)
        return None
    counts = [round(run) for run in runs]
    if min(counts) < 0 or sum(counts) > width * height:
        text = f"the runs of {shown(shape.get('rle'))} add up to {sum(counts)} pixels of {width * height}"
        spot.note("rle-counts", f"{text}; write the mask again", DROPPED)
        return None
    values = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    pixels = np.zeros(width * height, np.uint8)
    pixels[: len(values)] = values
    if not pixels.any():
        spot.note("zero-area", "the mask has no pixel; draw it again or remove it", DROPPED)
        return None
    return encode((pixels.reshape(height, width), left, top), *whole)
