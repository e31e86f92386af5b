"""The data.yaml of a YOLO data set: its folder, its parts, its classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionlora.data.annotations.part_names import ORDER, canonical, is_part
from visionlora.data.faults import Fault, Spot, shown
from visionlora.data.folders import refuse_missing_folder, what_there_is
from visionlora.errors import InputError, did_you_mean, some
from visionlora.plain_yaml import read_yaml

PARTS = ORDER


@dataclass(frozen=True)
class YoloSet:
    """Folder, classes, and for each part the folders of images, or .txt files that list some.

    A single part without a name is all of the data. ``keypoints`` is how many numbers a line has for its points,
    behind those of the box.
    """

    root: Path
    classes: list[str]
    parts: dict[str, list[str]]
    keypoints: int = 0


def load_yolo_yaml(path: Path, root: Path | None, faults: list[Fault]) -> YoloSet:
    """Read a data.yaml in the layout of ultralytics.

    ``path`` in it is the data folder, absolute or relative to the file, and may be missing. Where it is not there,
    as after a download, the folder of the file is taken, with a remark. ``root`` goes before either.

    Raises:
        InputError: no such file, no YAML, no names or no parts, or another value that makes no sense.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file{what_there_is(path)}")
    try:
        content = read_yaml(path.read_text(encoding="utf-8-sig"), null=False)  # a class may be called null
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not valid YAML ({error})") from error
    except InputError as error:
        raise InputError(f"{path}: is {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {shown(content)}; it needs names, and train or val")
    if root is None:
        root = _root(path, content.get("path"), faults)
    refuse_missing_folder(root)
    parts = _parts(content, path, faults)
    if not parts:
        hint = did_you_mean("train", [str(key) for key in content])
        raise InputError(f"{path}: has none of {some(PARTS)}{hint}; write where the images are, as in train: images")
    return YoloSet(root, _classes(content, path), parts, _keypoints(content.get("kpt_shape")))


def is_yolo_yaml(path: Path) -> bool:
    """Whether it has names and a part as keys of its own."""
    keys = _keys(path)
    return "names" in keys and any(is_part(key) for key in keys)


def is_about(path: Path, folder: Path) -> bool:
    """Whether a data.yaml is called like a folder, or says that its data lie in one of that name."""
    return folder.name in (path.stem, Path(_keys(path).get("path", "")).name)


def _keys(path: Path) -> dict[str, str]:
    """Those at the left edge of a YAML file, and what is written behind each."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace")[:100_000].splitlines()
    pairs = [line.partition(":") for line in lines if ":" in line and line[:1].isalpha()]
    return {key.strip(): value.partition(" #")[0].strip() for key, _, value in pairs}


def _parts(content: dict[Any, Any], path: Path, faults: list[Fault]) -> dict[str, list[str]]:
    """By ``train``, ``val`` and ``test``, whatever means them."""
    parts = {part: _entries(content[part], part, path) for part in PARTS if content.get(part)}
    for key, given in content.items():
        part = canonical(str(key))
        if given and is_part(str(key)) and part not in parts:
            Spot(path, str(key), faults).note("assumed", f"is read as {part}, which is its name in a {path.name}")
            parts[part] = _entries(given, str(key), path)
    return {part: parts[part] for part in PARTS if part in parts}


def _keypoints(shape: object) -> int:
    """From ``kpt_shape: [points, numbers for each]``."""
    if not isinstance(shape, list) or len(shape) != 2 or not all(str(side).isdecimal() for side in shape):
        return 0
    return int(shape[0]) * int(shape[1])


def _root(path: Path, given: Any, faults: list[Fault]) -> Path:
    if not given:
        return path.parent
    if not isinstance(given, str):
        raise InputError(f"{path}: 'path' is {shown(given)}; it should be a folder")
    root = path.parent / given
    if root.is_dir():
        return root
    text = f"path: {shown(given)} is not there, and the folder of {path.name} is taken"
    Spot(path, "", faults).note("other-path", text, "written for its own folder")
    return path.parent


def _entries(given: Any, part: str, path: Path) -> list[str]:
    entries = [given] if isinstance(given, str) else given
    if not isinstance(entries, list) or not all(isinstance(entry, str) and entry for entry in entries):
        raise InputError(f"{path}: '{part}' is {shown(given)}; it should be a folder, a .txt file, or a list of them")
    return entries


def _classes(content: dict[Any, Any], path: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names) != sorted(str(index) for index in range(len(names))):
            raise InputError(f"{path}: the numbers in 'names' are {some(names, 10)}; count from 0 without gaps")
        names = [names[str(index)] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: 'names' is {shown(names)}; name the classes, as in names: [car, van]")
    wrong = [name for name in names if not isinstance(name, str) or not name.strip() or not name.isprintable()]
    if wrong:
        raise InputError(f"{path}: the class {shown(wrong[0])} in 'names' is no name")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: the class {shown(repeated[0])} is in 'names' twice")
    if content.get("nc", str(len(names))) != str(len(names)):
        raise InputError(f"{path}: 'nc' is {shown(content['nc'])}, but there are {len(names)} names; correct one")
    return names
