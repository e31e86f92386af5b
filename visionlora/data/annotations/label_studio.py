"""Label Studio's own JSON, whole or JSON-MIN: tasks with their results, in per cent of the image."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionlora.data.annotations.annotated import RunLengths
from visionlora.data.annotations.boxes import DROPPED, numbers
from visionlora.data.annotations.json_file import read_json
from visionlora.data.annotations.listing import ListedImage, ListedObject, ellipse, read_listed, rotated_box
from visionlora.data.annotations.masks import encode
from visionlora.data.annotations.reading import PLAIN, Options, Reading
from visionlora.data.faults import Fault, Spot, shown
from visionlora.data.file_names import ImageFolder
from visionlora.data.images import IMAGE_SUFFIXES
from visionlora.errors import InputError

_LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels", "labels")
_NO_AREA = ("keypointlabels", "choices", "textarea", "rating", "number", "taxonomy", "relation", "vectorlabels")


def read_label_studio(path: Path, root: Path | None = None, options: Options = PLAIN) -> Reading:
    """Read an export as JSON or JSON-MIN, with the images anywhere below ``root``, or the file's folder.

    Paths and URLs that Label Studio writes are of its server, so that a file of the same name is taken, with or
    without the number that it puts before the names of uploads. Rectangles become boxes (turned ones outlines),
    polygons and ellipses outlines, brushes pixels. Of several annotations of one image the first is taken, with a
    remark. An image that is not annotated, or was skipped, is left out with a remark; one that is annotated with
    nothing is a negative.

    Raises:
        InputError: no JSON, or no list of tasks.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: is no export of Label Studio, which is a list of tasks")
    faults: list[Fault] = []
    listed = [_task(task, Spot(path, _where(task, n), faults)) for n, task in enumerate(content)]
    folder = ImageFolder(root or path.parent)
    return read_listed([image for image in listed if image is not None], folder, faults, options, (), "other-path")


def _where(task: object, index: int) -> str:
    return f"task {task['id']}" if isinstance(task, dict) and isinstance(task.get("id"), int) else f"tasks[{index}]"


def _task(task: Any, spot: Spot) -> ListedImage | None:
    if not isinstance(task, dict):
        spot.note("malformed", f"is {shown(task)}; a task has 'data' and 'annotations'", "image left out")
        return None
    data = task.get("data")
    if not isinstance(data, dict):
        return _image(task, [_as_result(value) for values in task.values() for value in _regions(values)], spot)
    if _image_name(data) is None:
        data = {"image": task.get("file_upload")}
    given = task.get("annotations", task.get("completions"))
    annotations = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    finished = [one for one in annotations if not one.get("was_cancelled") and not one.get("skipped")]
    if not finished:
        what = "was skipped" if annotations else "is not annotated yet"
        spot.note("unlabelled", f"{shown(_image_name(data))} {what}", "image left out")
        return None
    if len(finished) > 1:
        spot.note(
            "assumed", f"has {len(finished)} annotations; the first is taken, the others are not read", "first taken"
        )
    given = finished[0].get("result")
    return _image(data, [one for one in given if isinstance(one, dict)] if isinstance(given, list) else [], spot)


def _regions(values: object) -> list[dict[str, Any]]:
    """Those of JSON-MIN, which has no more than a region's value."""
    items = values if isinstance(values, list) else []
    return [item for item in items if isinstance(item, dict) and _kind(item)]


def _as_result(value: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": _kind(value),
        "value": value,
        **{key: value.get(key) for key in ("original_width", "original_height")},
    }


def _kind(value: dict[str, Any]) -> str | None:
    return next((key for key in (*_LABELS, *_NO_AREA) if key in value), None)


def _image_name(data: dict[str, Any]) -> str | None:
    """The value that names an image file, ``image`` first."""
    texts = [data.get(key) for key in ("image", "img", *data)]
    names = [text for text in texts if isinstance(text, str) and text.strip()]
    suffix = re.compile(rf"({'|'.join(map(re.escape, IMAGE_SUFFIXES))})\b", re.IGNORECASE)
    named = [name for name in names if suffix.search(name)]
    if named:
        return named[0]
    return data["image"] if isinstance(data.get("image"), str) else None


def _image(data: dict[str, Any], results: list[dict[str, Any]], spot: Spot) -> ListedImage | None:
    name = _image_name(data)
    if name is None:
        spot.note("malformed", f"names no image file ({shown(data)})", "image left out")
        return None
    names = _labels_of_regions(results)
    sizes = {(result.get("original_width"), result.get("original_height")) for result in results}
    sides = sizes.pop() if len(sizes) == 1 else (None, None)
    size = None
    if isinstance(sides[0], (int, float)) and isinstance(sides[1], (int, float)):
        size = (float(sides[0]), float(sides[1]))
    things = []
    for number, result in enumerate(results):
        place = Spot(spot.file, f"{spot.where}, result {number}", spot.found)
        things += _objects(result, names, size, place)
    return ListedImage(name, spot, size, things)


def _labels_of_regions(results: list[dict[str, Any]]) -> dict[object, list[Any]]:
    """Of regions whose label is a result of its own with the same id."""
    found = {}
    for result in results:
        value = result.get("value")
        if result.get("type") == "labels" and isinstance(value, dict) and isinstance(value.get("labels"), list):
            found[result.get("id")] = value["labels"]
    return found


def _objects(
    result: dict[str, Any], names: dict[object, list[Any]], size: tuple[float, float] | None, spot: Spot
) -> list[ListedObject]:
    """One for each label of a region; usually one."""
    kind, value = str(result.get("type")), result.get("value")
    shape = kind.removesuffix("labels") or "rectangle"
    if kind in _NO_AREA or (kind == "labels" and not (isinstance(value, dict) and "x" in value)):
        if kind != "labels":
            spot.note("no-shape", f"is {kind}, which is no object: not read")
        return []
    if not isinstance(value, dict):
        spot.note("malformed", f"has no value ({shown(value)})", DROPPED)
        return []
    if result.get("image_rotation"):
        text = (
            f"the image was turned by {result['image_rotation']} degrees in Label Studio; turn it back and export again"
        )
        spot.note("malformed", text, DROPPED)
        return []
    labels = value.get(kind) or value.get(f"{shape}labels") or names.get(result.get("id"))
    if not isinstance(labels, list) or not labels:
        spot.note("malformed", f"the {shape} has no label; give it one", DROPPED)
        return []
    drawn = _shape(shape, value, size, spot)
    if drawn is None:
        return []
    if len(labels) > 1:
        spot.note("assumed", f"has {len(labels)} labels: an object for each", "an object for each")
    return [ListedObject(label, spot, unit="percent", **drawn) for label in labels]


def _shape(kind: str, value: dict[str, Any], size: tuple[float, float] | None, spot: Spot) -> dict[str, Any] | None:
    if kind == "polygon":
        points = value.get("points")
        if not isinstance(points, list) or any(not isinstance(point, list) or len(point) != 2 for point in points):
            spot.note("malformed", f"the points are {shown(points)}; each has an x and a y", DROPPED)
            return None
        return {"rings": [[number for point in points for number in point]]}
    if kind == "brush":
        mask = _brush(value.get("rle"), size, spot)
        return None if mask is None else {"mask": mask}
    turn = value.get("rotation") or 0
    keys = {"rectangle": ("x", "y", "width", "height"), "ellipse": ("x", "y", "radiusX", "radiusY")}.get(kind)
    if keys is None:
        spot.note("no-shape", f"is {shown(kind)}, which is no object: not read")
        return None
    values = numbers([value.get(key) for key in keys] + [turn], f"the {kind}", spot)
    if values is None:
        return None
    a, b, c, d, degrees = values
    if kind == "rectangle" and not degrees:
        return {"corners": (a, b, a + c, b + d)}
    if size is None:
        if degrees:
            spot.note(
                "malformed", "is turned, and original_width and original_height are missing; export again", DROPPED
            )
            return None
        return {"rings": [ellipse(a, b, c, d)]}
    # turned as it is seen, in pixels, which per cent of two unequal sides are not
    x, y = size[0] / 100, size[1] / 100
    if kind == "rectangle":
        spot.note("rotated", f"is turned by {degrees:g} degrees: read as an outline, and the upright box around it")
        ring = rotated_box(a * x, b * y, (a + c) * x, (b + d) * y, degrees, (a * x, b * y))
    else:
        ring = ellipse(a * x, b * y, c * x, d * y, degrees)
    return {"rings": [[number / (y if n % 2 else x) for n, number in enumerate(ring)]]}


def _brush(code: object, size: tuple[float, float] | None, spot: Spot) -> RunLengths | None:
    """Label Studio's own run-length code of red, green, blue and alpha; the object is where alpha isn't 0."""
    if size is None or size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or 0):
        spot.note("malformed", "a brush needs original_width and original_height; export again", DROPPED)
        return None
    width, height = round(size[0]), round(size[1])
    values = _unpack(code, width * height * 4)
    if values is None:
        spot.note("rle-counts", f"the brush's rle is damaged ({shown(code)}); draw it again", DROPPED)
        return None
    pixels = (values.reshape(height, width, 4)[..., 3] > 0).astype(np.uint8)
    if not pixels.any():
        spot.note("zero-area", "the brush has no pixel; draw it again or remove it", DROPPED)
        return None
    return encode((pixels, 0, 0), width, height)


def _unpack(code: object, count: int) -> np.ndarray | None:
    """(count,) uint8, or None for what isn't so many values.

    Bits, high ones first: 32 of the number of values; 5 of a value's bits less one; four times 4 of the bits less one
    that a run's length may have. Then runs: 1 bit whether it repeats one value, 2 bits which of the four, the length
    less one, and that value, or all of them.
    """
    if not isinstance(code, list) or any(type(byte) is not int or not 0 <= byte < 256 for byte in code):
        return None
    text = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def take(bits: int) -> int:
        nonlocal place
        if place + bits > len(text):
            raise EOFError
        place += bits
        return int(text[place - bits : place], 2)

    try:
        if take(32) != count:
            return None
        bits = take(5) + 1
        lengths = [take(4) + 1 for _ in range(4)]
        values = np.zeros(count, np.uint8)
        done = 0
        while done < count:
            repeats = take(1)
            end = min(done + take(lengths[take(2)]) + 1, count)
            if repeats:
                values[done:end] = take(bits) & 255
            else:
                values[done:end] = [take(bits) & 255 for _ in range(end - done)]
            done = end
    except EOFError:
        return None
    return values
