"""YOLO without a data.yaml: darknet's obj.data, and folders of images and labels with a list of names."""

import json
import re
from pathlib import Path

from visionlora.data.annotations.part_names import ORDER, canonical, is_part
from visionlora.data.annotations.yolo_yaml import YoloSet, is_about, is_yolo_yaml
from visionlora.data.faults import shown
from visionlora.data.folders import refuse_missing_folder
from visionlora.data.peeking import files_below, files_with, folders_in, image_stems, shows_images
from visionlora.errors import InputError, some

_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names", "predefined_classes.txt")
_PEEKED = 20
"""Label files that are looked at, to tell whether they are some."""


def load_darknet(path: Path, root: Path | None = None) -> YoloSet:
    """Read an obj.data: lines of ``key = value`` with ``names``, ``train`` and ``valid``.

    The files that it names are relative to its folder, with or without the ``data/`` that CVAT writes before them.

    Raises:
        InputError: no names, no part, or a file of names that isn't there.
    """
    folder = root or path.parent
    refuse_missing_folder(folder)
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line]
    values = {key.strip().lower(): _local(value.strip(), path.parent) for key, _, value in pairs}
    if "names" not in values:
        raise InputError(f"{path}: has no 'names', the file with the classes' names, as darknet's obj.data has")
    parts = {canonical(key): [value] for key, value in values.items() if is_part(key) and value}
    if not parts:
        raise InputError(f"{path}: has none of {some(ORDER)}; write which images, as in train = train.txt")
    return YoloSet(folder, _names_in(path.parent / values["names"]), {p: parts[p] for p in ORDER if p in parts})


def load_yolo_folder(folder: Path, root: Path | None = None) -> YoloSet:
    """Images and labels in one folder, in ``images`` and ``labels``, or so for each part.

    Raises:
        InputError: no file says what the classes are called.
    """
    images = root or folder
    parts = yolo_parts(images)
    places = [
        folder,
        folder / "labels",
        folder / "data",
        *folders_in(folder),
    ]
    found = [names for place in dict.fromkeys(places) if place.is_dir() for names in [_names_file(place)] if names]
    if not found:
        place = folder.absolute()
        beside = [path for path in files_with(place.parent, ".yaml", ".yml") if is_yolo_yaml(path)]
        meant = [folder.parent / path.name for path in beside if is_about(path, place)]
        if len(meant) == 1:
            advice = f"{meant[0]} does, and lies beside it: give that instead"
        else:
            advice = "write a classes.txt there with a name on each line, or a data.yaml"
        raise InputError(f"{folder}: is laid out as YOLO, and no file in it says what the classes are called; {advice}")
    return YoloSet(images, _names_in(found[0]), parts or {"": ["."]})


def is_yolo_folder(folder: Path) -> bool:
    """Whether it holds images with YOLO labels, in one of the layouts of ``load_yolo_folder``."""
    return bool(yolo_parts(folder))


def yolo_parts(folder: Path) -> dict[str, list[str]]:
    """Part -> folders of its images; a single one without a name if there are no parts; empty if there is no label."""
    children = {child.name: child for child in folders_in(folder)}
    lower = {name.lower(): child for name, child in children.items()}
    images, labels = lower.get("images") or lower.get("imgs"), lower.get("labels")
    if images and labels and _has_labels(labels):
        inner = [child.name for child in folders_in(images) if is_part(child.name)]
        if inner:
            return _ordered({canonical(name): [f"{images.name}/{name}"] for name in inner})
        return {"": [images.name]}
    parts = {}
    for name, child in children.items():
        if is_part(name) and (inner_parts := yolo_parts(child)):
            parts[canonical(name)] = [
                f"{name}/{given}".removesuffix("/.") for given in next(iter(inner_parts.values()))
            ]
    if parts:
        return _ordered(parts)
    if _names_file(folder) and shows_images(folder):
        return {"": ["."]}
    if _has_labels_beside(folder):
        return {"": ["."]}
    return {}


def _ordered(parts: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: parts[name] for name in ORDER if name in parts}


def _has_labels(folder: Path) -> bool:
    files = [path for path in files_below(folder, ".txt") if path.name not in _NAME_FILES]
    return any(_is_label_file(file) for file in files[:_PEEKED])


def _has_labels_beside(folder: Path) -> bool:
    files = files_with(folder, ".txt")
    stems = image_stems(folder) if files else set()
    return any(_is_label_file(file) for file in [path for path in files if path.stem in stems][:_PEEKED])


def _is_label_file(path: Path) -> bool:
    """Whether its first line is a class and at least four numbers."""
    with path.open("rb") as file:
        lines = [
            line.strip() for line in file.read(4000).decode("utf-8-sig", errors="replace").splitlines() if line.strip()
        ]
    return bool(lines) and re.match(r"\d+(\.0*)?([\s,;]+[-+.\deE]+){4}", lines[0]) is not None


def _names_file(folder: Path) -> Path | None:
    files = {path.name.lower(): path for path in files_with(folder, ".txt", ".names", ".labels", ".json")}
    for name in _NAME_FILES:
        if name in files:
            return files[name]
    others = [path for name, path in files.items() if name.endswith((".names", ".labels"))]
    return others[0] if len(others) == 1 else files.get("notes.json")


def _names_in(path: Path) -> list[str]:
    """One on each line; of Label Studio's notes.json, the names of its categories."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, which should hold the classes' names, one on each line")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix.lower() == ".json":
        names = _names_of_notes(text, path)
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path}: names no class; write one on each line")
    if wrong := [name for name in names if not name.isprintable()]:
        raise InputError(f"{path}: the class {shown(wrong[0])} is no name")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: the class {shown(repeated[0])} is there twice")
    return names


def _names_of_notes(text: str, path: Path) -> list[str]:
    try:
        return [str(category["name"]) for category in json.loads(text)["categories"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: names no categories, as Label Studio's notes.json does") from error


def _local(given: str, folder: Path) -> str:
    """A path of an obj.data, without the ``data/`` where only that is there."""
    plain = given.removeprefix("data/").removeprefix("./")
    return plain if not (folder / given).exists() and (folder / plain).exists() else given
