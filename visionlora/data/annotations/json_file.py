"""A JSON file, and what wrote it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visionlora.data.folders import what_there_is
from visionlora.errors import InputError

_PEEKED = 8_000_000
"""Bytes: a larger file is told by its beginning and its end."""
_ENDS = 200_000

_SHAPES = ("rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "keypointlabels")


def read_json(path: Path) -> Any:
    """What a JSON file holds, in any of Unicode's encodings.

    Raises:
        InputError: no such file, or no JSON.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file{what_there_is(path)}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # ValueError: JSON, encoding, or a number of too many digits
        raise InputError(f"{path}: is not JSON ({' '.join(str(error).split())})") from error


def kind_of_json(path: Path) -> str | None:
    """``coco``, ``labelme``, ``via``, ``label-studio``, a key of ``OTHERS``, or None for none of them."""
    if path.stat().st_size > _PEEKED:
        return _kind_of_text(path)
    try:
        content = read_json(path)
    except InputError:
        return None
    return _kind_of(content)


OTHERS = {
    "createml": "Apple's CreateML; export it as COCO",
    "datumaro": "Datumaro's; export it as COCO, or in CVAT as 'CVAT for images 1.1' or 'COCO 1.0'",
    "fiftyone": "FiftyOne's own; export it as dataset_type=fiftyone.types.COCODetectionDataset",
    "geojson": "GeoJSON, of coordinates on a map; export pixels, as COCO",
    "labelbox": "Labelbox's; convert it to COCO with labelbox's own tools",
    "scalabel": "BDD100K's (Scalabel); convert it to COCO with its own tools",
    "supervisely": "Supervisely's; export it as COCO or Pascal VOC",
    "vott": "VoTT's own; export it there as Pascal VOC",
}
"""What is told and not read -> whose it is, and what to do."""


def _kind_of(content: Any) -> str | None:
    if isinstance(content, list):
        return _kind_of_list(content)
    if not isinstance(content, dict):
        return None
    return next((kind for kind, fits in _DOCUMENTS if fits(content)), None)


def _is_via(content: dict[str, Any]) -> bool:
    if "_via_img_metadata" in content or ("_via_settings" in content and "_via_attributes" in content):
        return True
    if {"project", "file", "metadata", "view"} <= content.keys():  # VIA 3
        return True
    items = list(content.values())
    return bool(items) and all(isinstance(item, dict) and {"filename", "regions"} <= item.keys() for item in items)


_DOCUMENTS: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    ("labelme", lambda c: isinstance(c.get("shapes"), list)),
    ("via", _is_via),
    ("datumaro", lambda c: {"categories", "items"} <= c.keys()),
    ("vott", lambda c: {"assets", "tags"} <= c.keys()),
    ("fiftyone", lambda c: {"classes", "labels"} <= c.keys() or {"sample_fields", "media_type"} <= c.keys()),
    ("geojson", lambda c: c.get("type") == "FeatureCollection"),
    ("scalabel", lambda c: "frames" in c and "images" not in c),
    ("supervisely", lambda c: {"objects", "size"} <= c.keys() or ("classes" in c and "projectType" in c)),
    ("labelbox", lambda c: "data_row" in c),
    ("coco", lambda c: bool({"images", "annotations"} & c.keys())),
]


def _kind_of_list(items: list[Any]) -> str | None:
    first = items[0] if items else None
    if not isinstance(first, dict):
        return None
    if "image_id" in first and ("score" in first or "category_id" in first):
        return "coco"  # results: its reader says so
    if "data_row" in first or "Labeled Data" in first:
        return "labelbox"
    if "data" in first or any(_is_min_value(value) for item in items[:50] for value in _values(item)):
        return "label-studio"
    if "annotations" in first and ({"image", "imagefilename"} & first.keys()):
        return "createml"
    if "name" in first and "labels" in first:
        return "scalabel"
    return None


def _values(item: object) -> list[Any]:
    return list(item.values()) if isinstance(item, dict) else []


def _is_min_value(value: object) -> bool:
    """A list of regions, as in Label Studio's JSON-MIN."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return any(key in value[0] for key in _SHAPES)


def _kind_of_text(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(_ENDS)
        file.seek(-_ENDS, 2)
        text = (head + file.read()).decode("utf-8", errors="replace")
    keys = set(re.findall(r'"(\w+)"\s*:', text))
    if text.lstrip("\ufeff \r\n\t").startswith("["):
        if "score" in keys and "image_id" in keys:
            return "coco"  # results: its reader says so
        return "label-studio" if {"data", "annotations"} <= keys or keys & set(_SHAPES) else None
    if "shapes" in keys and keys & {"imagePath", "imageData", "shape_type"}:
        return "labelme"
    if {"_via_settings", "_via_img_metadata", "region_attributes"} & keys:
        return "via"
    return "coco" if {"images", "annotations", "categories", "category_id", "file_name"} & keys else None
