"""LabelMe: one JSON file for each image, with its shapes."""

import base64
import binascii
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionlora.data.annotations.annotated import RunLengths
from visionlora.data.annotations.boxes import DROPPED, numbers
from visionlora.data.annotations.json_file import read_json
from visionlora.data.annotations.listing import ListedImage, ListedObject, ellipse, read_listed
from visionlora.data.annotations.masks import encode
from visionlora.data.annotations.reading import PLAIN, Options, Reading
from visionlora.data.faults import Fault, Spot, shown
from visionlora.data.file_names import ImageFolder
from visionlora.data.folders import images_in
from visionlora.data.peeking import files_below
from visionlora.errors import InputError

_NO_AREA = {"line", "linestrip", "point", "points"}
_OUTLINES = {"polygon", "oriented_rectangle", "rotation", None}


def read_labelme(path: Path, root: Path | None = None, options: Options = PLAIN) -> Reading:
    """Read a folder of LabelMe's JSON files, or a single one.

    The image is the one with the JSON file's name beside it or in ``root``; where there is none, ``imagePath``, which
    is relative to the JSON file, or a file of its name anywhere in the folder. Rectangles become boxes, polygons and
    circles outlines, masks pixels; shapes of one label and one ``group_id`` are one object. Lines and points are no
    objects, with a remark. A file without shapes is a negative.

    Raises:
        InputError: no JSON files there.
    """
    folder = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else files_below(path, ".json")
    if not files:
        raise InputError(f"{path}: holds no .json files; LabelMe has one for each image")
    images = ImageFolder(root or folder, root or folder)
    by_stem: dict[str, list[Path]] = {}
    for image in images_in(images.root):
        by_stem.setdefault(image.stem, []).append(image)
    faults: list[Fault] = []
    listed = [_listed(file, by_stem, Spot(file, "", faults), images) for file in files]
    # imagePath is of the machine that it was labelled on
    return read_listed([image for image in listed if image is not None], images, faults, options, (), "other-path")


def _listed(file: Path, by_stem: dict[str, list[Path]], spot: Spot, folder: ImageFolder) -> ListedImage | None:
    try:
        content = read_json(file)
    except InputError as error:
        spot.note("broken-file", f"{str(error).removeprefix(f'{file}: ')}; correct or remove it", "image left out")
        return None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        spot.note("broken-file", "has no 'shapes', as LabelMe writes; correct or remove it", "image left out")
        return None
    given = [content.get("imageWidth"), content.get("imageHeight")]
    sides = (
        None if given == [None, None] else numbers(given, "[imageWidth, imageHeight]", spot, "the file's size taken")
    )
    size = None if sides is None else (sides[0], sides[1])
    same = by_stem.get(file.stem, [])
    beside = [image for image in same if image.parent == file.parent] or same
    name: object = content.get("imagePath")
    if len(beside) == 1:
        if isinstance(name, str) and name.replace("\\", "/").rpartition("/")[2] != beside[0].name:
            text = f"imagePath is {shown(name)}, but {beside[0].name} has the name of the JSON file and is taken"
            spot.note("other-path", text, f"{beside[0].name} taken")
        name = beside[0]
    elif not same and content.get("imageData") and _is_missing(name, file, folder):
        text = f"its image {shown(name)} is not there, only inside this file; save it with labelme_export_json"
        spot.note("missing-file", text, "image left out")
        return None
    return ListedImage(name, spot, size, _objects(content["shapes"], size, file, spot.found), {}, file.parent)


def _is_missing(name: object, file: Path, folder: ImageFolder) -> bool:
    return folder.locate(name, Spot(file, "", []), file.parent) is None


def _objects(
    shapes: list[Any], size: tuple[float, float] | None, file: Path, faults: list[Fault]
) -> list[ListedObject]:
    things: list[ListedObject] = []
    grouped: dict[tuple[str, str], ListedObject] = {}
    for number, shape in enumerate(shapes):
        spot = Spot(file, f"shapes[{number}]", faults)
        thing = _object(shape, size, spot)
        if thing is None:
            continue
        group = shape.get("group_id")
        if group is None or thing.rings is None:
            things.append(thing)
            continue
        key = (str(thing.name), str(group))
        if key not in grouped:
            grouped[key] = thing
            things.append(thing)
        elif (rings := grouped[key].rings) is not None:
            rings += thing.rings
            spot.note(
                "assumed", f"belongs to {grouped[key].spot.where}, which has the same group_id: one object", "joined"
            )
    return things


def _object(shape: Any, size: tuple[float, float] | None, spot: Spot) -> ListedObject | None:
    if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
        spot.note("malformed", f"is {shown(shape)}; a shape has a 'label' and 'points'", DROPPED)
        return None
    kind, name = shape.get("shape_type", "polygon"), shape.get("label")
    if kind in _NO_AREA:
        spot.note("no-shape", f"is a {kind}, which has no area: not read")
        return None
    values = _points(shape["points"], spot)
    if values is None:
        return None
    xs, ys = values[::2], values[1::2]
    if kind in ("rectangle", "mask"):
        if len(xs) < 2:
            spot.note("malformed", f"a {kind} has {len(xs)} point; it needs two corners", DROPPED)
            return None
        corners = (min(xs), min(ys), max(xs), max(ys))
        if kind == "rectangle":
            return ListedObject(name, spot, corners)
        mask = _mask(shape.get("mask"), corners, size, spot)
        return None if mask is None else ListedObject(name, spot, mask=mask)
    if kind == "circle":
        if len(xs) != 2:
            spot.note("malformed", f"a circle has {len(xs)} points; it needs its centre and one on it", DROPPED)
            return None
        radius = float(np.hypot(xs[1] - xs[0], ys[1] - ys[0]))
        return ListedObject(name, spot, rings=[ellipse(xs[0], ys[0], radius, radius)])
    if kind not in _OUTLINES:
        spot.note(
            "malformed", f"the shape_type is {shown(kind)}, which is not known; draw a polygon or rectangle", DROPPED
        )
        return None
    return ListedObject(name, spot, rings=[values])


def _points(points: list[Any], spot: Spot) -> list[float] | None:
    """x, y, x, y ..."""
    if wrong := [point for point in points if not isinstance(point, list) or len(point) != 2]:
        spot.note("malformed", f"a point is {shown(wrong[0])}; it has an x and a y", DROPPED)
        return None
    return numbers([value for point in points for value in point], "the shape", spot)


def _mask(code: object, corners: tuple[float, ...], size: tuple[float, float] | None, spot: Spot) -> RunLengths | None:
    """A PNG, in text, of the part of the image that the corners name."""
    if size is None or not isinstance(code, str) or size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or 0):
        spot.note("malformed", "the mask has no pixels, or its image no size; draw it again", DROPPED)
        return None
    try:
        with Image.open(io.BytesIO(base64.b64decode(code)), formats=["PNG"]) as image:
            if image.width > size[0] + 1 or image.height > size[1] + 1:
                raise ValueError("it is larger than the image")
            pixels = (np.asarray(image.convert("L")) > 0).astype(np.uint8)
    except (OSError, ValueError, binascii.Error, SyntaxError) as error:
        spot.note("malformed", f"the mask is no PNG that can be read ({error}); draw it again", DROPPED)
        return None
    width, height = round(size[0]), round(size[1])
    left, top = round(corners[0]), round(corners[1])
    if left < 0 or top < 0:
        spot.note("mask-outside", "the mask begins outside the image; draw it again", DROPPED)
        return None
    pixels = pixels[: height - top, : width - left]
    if not pixels.any():
        spot.note("zero-area", "the mask has no pixel; draw it again or remove it", DROPPED)
        return None
    return encode((pixels, left, top), width, height)
