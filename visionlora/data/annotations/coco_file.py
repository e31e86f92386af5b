"""A COCO json as a whole: that it is one, its categories, and its ids."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from visionlora.data.annotations.json_file import read_json
from visionlora.data.faults import Fault, Spot, listed, shown
from visionlora.errors import InputError, did_you_mean

Id = int | str


@dataclass(frozen=True)
class Document:
    """The three lists of a COCO file; images and annotations as they stand, categories by id, in order.

    ``category_ids`` are those of the categories as they are written.
    """

    images: list[Any]
    annotations: list[Any]
    categories: dict[Id, str]
    category_ids: list[Any]


def load_document(path: Path, faults: list[Fault]) -> Document:
    """Raises InputError, as ``coco.read_coco`` says."""
    content = read_whole(path)
    _refuse_video(content["images"], path)
    annotations, categories = content["annotations"], content["categories"]
    ids = [category.get("id") for category in categories if isinstance(category, dict)]
    return Document(content["images"], annotations, _categories(categories, annotations, path, faults), ids)


def read_whole(path: Path) -> dict[str, Any]:
    """A COCO json with its three lists, whatever is in them.

    Raises:
        InputError: no such file, no JSON, or a list is missing.
    """
    content = read_json(path)
    if isinstance(content, list):
        if content and _is_detection(content[0]):
            raise InputError(
                f"{path}: is no COCO file (a list of detections has no images), but results with scores, as "
                "COCO's tools write them; give the file with the keys images, annotations, categories"
            )
        raise InputError(
            f"{path}: is no COCO file (it holds a list); it needs the keys images, annotations, categories"
        )
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no COCO file; it needs the keys images, annotations, categories")
    for key in ("images", "annotations", "categories"):
        if key not in content:
            there = did_you_mean(key, content)
            told = _told_ids(content) if key == "categories" else ""
            raise InputError(f"{path}: has no '{key}'{there}; a COCO file has images, annotations and categories{told}")
        if not isinstance(content[key], list):
            raise InputError(f"{path}: '{key}' is {shown(content[key])}; it should be a list")
    return content


def is_id(value: object) -> TypeGuard[Id]:
    """Ids are whole numbers, or text."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def plain_id(value: Any) -> Any:
    """The same id whether it is written 1, 1.0 or "1"; what is none as it stands."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().isdecimal() and value.strip().isascii() and len(value) < 19:
        return int(value)
    return value


def note_text_ids(document: dict[str, Iterable[Any]], path: Path, faults: list[Fault]) -> None:
    """A remark for each list whose ids are partly text and partly numbers, so that they match only as plain ids."""
    for what, ids in document.items():
        plain = list(ids)
        texts = any(isinstance(value, str) and is_id(value) and value != plain_id(value) for value in plain)
        if texts and any(isinstance(value, (int, float)) for value in plain):
            text = (
                f"ids of {what} are written as text in one place and as numbers in another; they are taken as the same"
            )
            Spot(path, "", faults).note("assumed", text, "numbered anew")


def _told_ids(content: dict[str, Any]) -> str:
    annotations = content.get("annotations")
    ids = [a.get("category_id") for a in annotations if isinstance(a, dict)] if isinstance(annotations, list) else []
    used = list(dict.fromkeys(value for value in ids if is_id(value)))
    if not used:
        return ""
    names = "{" + f'"id": {used[0]}, "name": ...' + "}"
    return f'; the annotations use {listed(used, 10)}: name each, as in "categories": [{names}]'


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


def _categories(categories: list[Any], annotations: list[Any], path: Path, faults: list[Fault]) -> dict[Id, str]:
    """Id -> name, in the order of the ids; ids that are text come in the order of the file."""
    categories = _without_group(categories, annotations, path, faults)
    names: dict[Id, str] = {}
    for index, category in enumerate(categories):
        where = f"{path}, categories[{index}]"
        number = plain_id(category.get("id")) if isinstance(category, dict) else None
        if not is_id(number):
            raise InputError(f"{where}: is {shown(category)}; a category has an 'id', a whole number, and a 'name'")
        name = category.get("name")
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"{where}: the name is {shown(name)}; give it one")
        if number in names:
            raise InputError(f"{where}: id {number} is that of {shown(names[number])} as well")
        if name in names.values():
            raise InputError(f"{where}: there are two categories {shown(name)}; give one another name")
        names[number] = name
    if not names:
        raise InputError(f"{path}: has no categories; name the classes there")
    order = list(names)
    return dict(
        sorted(names.items(), key=lambda item: item[0] if isinstance(item[0], int) else 10**19 + order.index(item[0]))
    )


def _without_group(categories: list[Any], annotations: list[Any], path: Path, faults: list[Fault]) -> list[Any]:
    """Without categories that no annotation has, if Roboflow made them for the group of all, or their name is used."""
    used = {shown(plain_id(a.get("category_id"))) for a in annotations if isinstance(a, dict)}
    plain = [category for category in categories if isinstance(category, dict)]
    empty = [category for category in plain if shown(plain_id(category.get("id"))) not in used]
    groups = [category.get("supercategory") for category in plain]
    names = [category.get("name") for category in plain if category not in empty]
    for category in empty:
        text = f"no object has the class {shown(category.get('name'))} with the id {shown(category.get('id'))}"
        if category.get("supercategory") == "none" and category.get("name") in groups:
            text += ", Roboflow's name for the group of all"
        elif category.get("name") not in names:
            continue
        Spot(path, "", faults).note("unused-class", f"{text}: it is left out", "left out")
        categories = [other for other in categories if other is not category]
    return categories
