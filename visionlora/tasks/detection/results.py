"""Detections as COCO's list of results, which other tools read, and back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionlora.errors import InputError, some
from visionlora.files import write_json

Result = dict[str, Any]
"""``image_id``, ``category_id``, ``bbox`` as x, y, width, height, ``score``, and with masks ``segmentation``."""


def to_results(prediction: Mapping[str, Tensor], image_id: int | str, category_ids: Sequence[int]) -> list[Result]:
    """One image's detections as results.

    Args:
        prediction: ``boxes`` (N, 4) as x1, y1, x2, y2, ``labels`` (N,), ``scores`` (N,) and perhaps ``masks``
            (N, H, W) of 0 and 1; soft ones are cut at 0.5.
        image_id: of the image in the data set.
        category_ids: of the classes, in the order of the labels.
    """
    from faster_coco_eval.core import mask

    boxes = prediction["boxes"].detach().cpu().double().reshape(-1, 4)
    corners = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    labels, scores = prediction["labels"].tolist(), prediction["scores"].tolist()
    results: list[Result] = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for label, box, score in zip(labels, corners, scores, strict=True)
    ]
    if "masks" in prediction:
        for result, pixels in zip(results, prediction["masks"].detach().cpu().numpy(), strict=True):
            code = mask.encode(np.asfortranarray(pixels > 0.5, dtype=np.uint8))
            result["segmentation"] = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
    return results


def from_results(
    results: Sequence[Result], category_ids: Sequence[int], size: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """One image's results as detections, the reverse of ``to_results``.

    Args:
        results: of one image, as ``read_results`` gives them.
        category_ids: of the classes, in the order of the labels.
        size: (height, width) of the image; with it masks are decoded, which every result must then have.

    Returns:
        ``boxes`` (N, 4) float32 as x1, y1, x2, y2, ``labels`` (N,), ``scores`` (N,) float32, and with a size
        ``masks`` (N, H, W) bool.

    Raises:
        InputError: a category is none of the ids, or a mask is missing, damaged, or of another size.
    """
    labels = {category: label for label, category in enumerate(category_ids)}
    unknown = {result["category_id"] for result in results} - labels.keys()
    if unknown:
        raise InputError(f"category {min(unknown)} is none of the classes' ({some(category_ids)})")
    boxes = torch.tensor([result["bbox"] for result in results], dtype=torch.float64).reshape(-1, 4)
    found = {
        "boxes": torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1).float(),
        "labels": torch.tensor([labels[result["category_id"]] for result in results], dtype=torch.int64),
        "scores": torch.tensor([result["score"] for result in results], dtype=torch.float32),
    }
    if size is not None:
        masks = [_decoded(result, size) for result in results]
        found["masks"] = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *size, dtype=torch.bool)
    return found


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write the results of all images as one JSON file."""
    write_json(path, list(results))


def read_results(path: Path) -> dict[int | str, list[Result]]:
    """Read a file of results: image id -> its results, both in the order of the file.

    Raises:
        InputError: no such file, no JSON, or an entry isn't a result; segmentations aren't looked into.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as JSON ({error})") from error
    if not isinstance(content, list):
        raise InputError(f"{path}: not a list of results, as COCO's are, but {type(content).__name__}")
    by_image: dict[int | str, list[Result]] = {}
    for number, entry in enumerate(content):
        if fault := _fault(entry):
            raise InputError(f"{path}: entry {number} (from 0): {fault}")
        by_image.setdefault(entry["image_id"], []).append(entry)
    return by_image


def _fault(entry: Any) -> str:
    """What is wrong with a result, or an empty string."""
    if not isinstance(entry, dict):
        return f"{type(entry).__name__} instead of an object"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in entry]
    if missing:
        return f"without {some(missing)}"
    if type(entry["image_id"]) not in (int, str) or type(entry["category_id"]) is not int:
        return "image_id must be a number or text, category_id a whole number"
    box = entry["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
        return "bbox must be four numbers"
    if box[2] < 0 or box[3] < 0:
        return "bbox has a negative width or height"
    return "" if _is_finite(entry["score"]) else "score must be a number"


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and bool(np.isfinite(value))


def _decoded(result: Result, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool."""
    from faster_coco_eval.core import mask

    code, where = result.get("segmentation"), f"image {result['image_id']}"
    if not isinstance(code, dict) or not isinstance(code.get("counts"), str):
        raise InputError(f"{where}: a detection without a segmentation in compressed run lengths")
    if code.get("size") != list(size):
        raise InputError(f"{where}: a mask of size {code.get('size')} for an image of {list(size)} (height, width)")
    try:
        pixels: np.ndarray = mask.decode({"size": list(size), "counts": code["counts"].encode()})
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{where}: a mask's run lengths are damaged ({error})") from error
    return pixels > 0
