"""One label file of YOLO, line by line."""

import re
from pathlib import Path

from visionlora.data.annotations.annotated import LabelledObject
from visionlora.data.annotations.boxes import DROPPED, check_box, numbers, span
from visionlora.data.annotations.polygons import check_polygons, extent
from visionlora.data.faults import Fault, Spot, shown
from visionlora.errors import some


def read_label_file(
    path: Path, classes: list[str], width: int, height: int, faults: list[Fault], keypoints: int = 0
) -> list[LabelledObject]:
    """The objects; a line with a fault is left out. ``width`` and ``height`` are those of the image.

    ``keypoints`` is how many numbers a line has behind a box, which are not read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        Spot(path, "", faults).note("broken-file", f"is no text ({error.reason}); write it again", "labels left out")
        return []
    spots = [(line, Spot(path, f"line {number}", faults)) for number, line in enumerate(lines, 1) if line.strip()]
    found = [_object(_columns(line, spot), classes, width, height, spot, keypoints) for line, spot in spots]
    return [thing for thing in found if thing is not None]


def _columns(line: str, spot: Spot) -> list[str]:
    """Between commas or semicolons too, noted; a line without is split at spaces."""
    columns = line.split()
    if len(columns) < 5 and len(split := [part.strip() for part in re.split("[,;]", line)]) >= 5:
        spot.note(
            "wrong-columns", "has commas between its columns, where YOLO has spaces; write spaces", "split at commas"
        )
        return split
    return columns


def _object(
    columns: list[str], classes: list[str], width: int, height: int, spot: Spot, keypoints: int
) -> LabelledObject | None:
    label = _label(columns[0], classes, spot)
    if label is None:
        return None
    if keypoints and len(columns) == 5 + keypoints:
        columns = columns[:5]
    count = len(columns) - 1
    if count != 4 and (count < 6 or count % 2):
        text = f"has {len(columns)} columns; a box has 5 (class cx cy w h), a polygon 7, 9, 11 ... (class x y x y x y)"
        if count == 5:
            text += "; a sixth is the score of a prediction"
        elif count > 6:
            text += "; keypoints are told by kpt_shape in the data.yaml"
        spot.note("wrong-columns", text, DROPPED)
        return None
    values = numbers([_number(column) for column in columns[1:]], "the line", spot)
    if values is None:
        return None
    if count == 4 and min(values[2:]) < 0:
        spot.note("negative-size", f"the box is {values[2]:g} wide and {values[3]:g} high; correct it", DROPPED)
        return None
    for index, value in enumerate(values):
        slack = 1 / (height if index % 2 else width)  # a pixel, which is clipped with a remark
        if not -slack <= value <= 1 + slack:
            hint = ": these look like pixels" if min(values) >= 0 and max(values) > 2 else ""
            text = f"holds {value:g}; values are shares of the image, 0 to 1, and no pixels{hint}"
            spot.note("not-normalised", text, DROPPED)
            return None
    pixels = [value * (height if index % 2 else width) for index, value in enumerate(values)]
    if count == 4:
        cx, cy, w, h = pixels
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        box = check_box(corners, width, height, spot, f"the box, in pixels {span(corners)},")
        return None if box is None else LabelledObject(label, box, source=spot.where)
    polygons = check_polygons([pixels], width, height, spot)
    if polygons is None:
        return None
    box = check_box(extent(polygons), width, height, spot)
    return None if box is None else LabelledObject(label, box, polygons, source=spot.where)


def _label(text: str, classes: list[str], spot: Spot) -> int | None:
    if re.fullmatch(r"[0-9]{1,9}\.0*", text):
        spot.note("assumed", f"the class is written {shown(text)}: {text.partition('.')[0]} is taken")
        text = text.partition(".")[0]
    if not re.fullmatch("[0-9]{1,9}", text):
        spot.note("not-a-number", f"the class is {shown(text)}; it is a whole number from 0", DROPPED)
        return None
    if int(text) >= len(classes):
        hint = "; are they counted from 1 here?" if int(text) == len(classes) else ""
        text = f"class {text}, but there are {len(classes)}, counted from 0 ({some(classes, 10)}); correct it{hint}"
        spot.note("unknown-class", text, DROPPED)
        return None
    return int(text)


def _number(text: str) -> object:
    """A float where the text is one, otherwise the text."""
    try:
        return float(text)
    except ValueError:
        return text
