"""Files that name the classes of masks: our YAML, and what CVAT, CamVid, fastai, Roboflow and Supervisely write."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

from visionlora.data.folders import find_part, subfolders
from visionlora.data.segmentation.class_map import SPREAD, ClassEntry, ClassMap, Color, make_class_map, read_class_map
from visionlora.errors import InputError

_KNOWN = (
    *("classes.yaml", "classes.yml", "labelmap.txt", "class_dict.csv", "_classes.csv"),
    *("obj_class_to_machine_color.json", "label_colors.txt", "classes.txt", "codes.txt"),
)
"""Names of such files, the likeliest first."""

_COLORED = re.compile(r"(\d+\s+\d+\s+\d+)\s+(\S.*)")


def find_class_file(root: Path) -> Path | None:
    """The file in a data set's folder, or in that of its training part, which names the classes."""
    if not root.is_dir():
        return None
    part = find_part("train", [path.name for path in subfolders(root)])
    for folder in (root, *([root / part] if part else [])):
        for name in _KNOWN:
            if (folder / name).is_file():
                return folder / name
    return None


def read_classes(path: Path, nearest: bool = False) -> ClassMap:
    """Read a file of classes, in whatever of these forms it is.

    - ``.yaml``: as ``read_class_map`` says;
    - CVAT's ``labelmap.txt``: ``name:red,green,blue:parts:actions`` in each line;
    - CamVid's ``label_colors.txt``: ``red green blue name`` in each line;
    - another ``.txt``, as fastai's ``codes.txt``: a name in each line;
    - CamVid's ``class_dict.csv``: columns name, r, g, b; Roboflow's ``_classes.csv``: Pixel Value, Class;
    - Supervisely's ``obj_class_to_machine_color.json``: name -> [red, green, blue]; black is the background.

    Where a file doesn't say a class's value, that is its place, from 0.

    Args:
        path: of the file.
        nearest: round what stands for no class to the nearest that does.

    Raises:
        InputError: no such file, or anything in it that can't be meant; classes too near each other to round to.
    """
    readers = {".txt": _read_lines, ".csv": _read_table, ".json": _read_colors}
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        class_map = read_class_map(path)
    else:
        try:
            class_map = make_class_map(reader(path.read_text(encoding="utf-8-sig")))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is no text in UTF-8") from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    if nearest:
        _refuse_near_classes(class_map, path)
    return replace(class_map, nearest=nearest)


def _refuse_near_classes(class_map: ClassMap, path: Path) -> None:
    one, other, apart = max(
        (class_map.nearest_classes(colored) for colored in ([False, True] if class_map.codes else [False])),
        key=lambda found: found[2],
    )
    if apart < SPREAD:
        raise InputError(
            f"{path}: masks can't be rounded to the nearest class: '{one}' and '{other}' are {apart} apart, and JPEG "
            f"and smoothed edges need {SPREAD} or more; where masks hold 0 and 255, say so there: "
            f"values: {{255: {class_map.names[-1]}}}"
        )


def _read_lines(text: str) -> list[ClassEntry]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and all(colored := [_COLORED.fullmatch(line) for line in lines]):
        found = [match.groups() for match in colored if match is not None]
        return [ClassEntry(name, place, _color(color.split(), name)) for place, (color, name) in enumerate(found)]
    if not any(line.count(":") >= 2 for line in lines):
        return [ClassEntry(line, place) for place, line in enumerate(lines)]
    entries = []
    for place, line in enumerate(lines):
        name, _, rest = line.partition(":")
        color = rest.split(":")[0].split(",")
        entries.append(ClassEntry(name, place, _color(color, line) if any(color) else None))
    return entries


def _read_table(text: str) -> list[ClassEntry]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if any(row)]
    header = [name.lower() for name in rows[0]] if rows else []
    names = next((header.index(name) for name in ("name", "class", "label", "class_name") if name in header), None)
    channels = [
        next((header.index(name) for name in (word, word[0]) if name in header), None)
        for word in ("red", "green", "blue")
    ]
    values = next((header.index(name) for name in ("pixel value", "value", "id", "index") if name in header), None)
    if names is None or (values is None and None in channels):
        raise InputError("line 1: no columns name, r, g, b (CamVid), or Pixel Value, Class (Roboflow)")
    entries = []
    for place, row in enumerate(rows[1:]):
        if len(row) < len(header):
            raise InputError(f"line {place + 2}: not as many cells as the header has")
        value = _whole(row[values], f"line {place + 2}", 65535) if values is not None else place
        color = None if None in channels else _color([row[channel] for channel in channels if channel is not None], row)
        entries.append(ClassEntry(row[names], value, color))
    return entries


def _read_colors(text: str) -> list[ClassEntry]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"is no JSON ({error})") from error
    if not isinstance(content, dict) or not all(isinstance(color, list) for color in content.values()):
        raise InputError('holds no colours by name, as in {"road": [1, 1, 1]}')
    entries = [
        ClassEntry(name, place, _color([str(channel) for channel in color], name))
        for place, (name, color) in enumerate(content.items(), start=1)
    ]
    if any(entry.color == (0, 0, 0) for entry in entries):
        return [replace(entry, value=entry.value - 1) for entry in entries]
    return [ClassEntry("background", 0, (0, 0, 0)), *entries]


def _color(channels: list[str], where: object) -> Color:
    if len(channels) != 3:
        raise InputError(f"{where}: give a colour as red, green, blue, each 0 to 255")
    red, green, blue = (_whole(channel, where, 255) for channel in channels)
    return red, green, blue


def _whole(text: str, where: object, most: int) -> int:
    if not (text.strip().isascii() and text.strip().isdigit()) or int(text) > most:
        raise InputError(f"{where}: {text!r} is no number from 0 to {most}")
    return int(text)
