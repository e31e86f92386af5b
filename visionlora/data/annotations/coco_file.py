"""A COCO json as a whole: that it is one, and its categories."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionlora.data.faults import listed, shown
from visionlora.data.folders import what_there_is
from visionlora.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Document:
    """The three lists of a COCO file; images and annotations as they stand, categories by id."""

    images: list[Any]
    annotations: list[Any]
    categories: dict[int, str]


def load_document(path: Path) -> Document:
    """Raises InputError, as `coco.read_coco` says."""
    content = read_whole(path)
    _refuse_video(content["images"], path)
    return Document(content["images"], content["annotations"], _categories(content["categories"], path))


def read_whole(path: Path) -> dict[str, Any]:
    """A COCO json with its three lists, whatever is in them.

    Raises:
        InputError: no such file, no JSON, or a list is missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file{what_there_is(path)}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # ValueError: JSON, encoding, or a number of too many digits
        raise InputError(f"{path}: is not JSON ({' '.join(str(error).split())})") from error
    if isinstance(content, list):
        hint = "a list of detections has no images" if content and _is_detection(content[0]) else "it holds a list"
        raise InputError(f"{path}: is no COCO file ({hint}); it needs the keys images, annotations, categories")
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no COCO file; it needs the keys images, annotations, categories")
    for key in ("images", "annotations", "categories"):
        if key not in content:
            there = did_you_mean(key, content)
            raise InputError(f"{path}: has no '{key}'{there}; a COCO file has images, annotations and categories")
        if not isinstance(content[key], list):
            raise InputError(f"{path}: '{key}' is {shown(content[key])}; it should be a list")
    return content


def _is_detection(item: object) -> bool:
    return isinstance(item, dict) and "score" in item


def _refuse_video(images: list[Any], path: Path) -> None:
    if not images or any(isinstance(image, dict) and "file_name" in image for image in images):
        return
    keys = sorted({key for image in images if isinstance(image, dict) for key in image})
    advice = "write each image's file, relative to the json or to --root"
    if "frame" in keys:
        advice = "it describes frames of a video: visionlora frames VIDEO --annotations FILE --out FOLDER saves them"
    raise InputError(f"{path}: no image has a 'file_name' (they have {listed(keys, 10)}); {advice}")


def _categories(categories: list[Any], path: Path) -> dict[int, str]:
    """Id -> name."""
    names: dict[int, str] = {}
    for index, category in enumerate(categories):
        where = f"{path}, categories[{index}]"
        if not isinstance(category, dict) or type(category.get("id")) is not int:
            raise InputError(f"{where}: is {shown(category)}; a category has an 'id', a whole number, and a 'name'")
        name = category.get("name")
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"{where}: the name is {shown(name)}; give it one")
        if category["id"] in names:
            raise InputError(f"{where}: id {category['id']} is that of {shown(names[category['id']])} as well")
        if name in names.values():
            raise InputError(f"{where}: there are two categories {shown(name)}; give one another name")
        names[category["id"]] = name
    if not names:
        raise InputError(f"{path}: has no categories; name the classes there")
    return names
