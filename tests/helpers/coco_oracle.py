"""Random detections and objects, and pycocotools' verdict on them."""

import contextlib
import io
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

CLASSES = ["car", "person", "van"]
SIDE = 256
Image = dict[str, Tensor]


def random_scenes(
    seed: int, images: int = 12, crowds: bool = False, masks: bool = False, ties: bool = False
) -> tuple[list[Image], list[Image]]:
    """Predictions and targets: objects of all sizes, detections that are right, shifted, doubled, or of nothing."""
    rng = np.random.default_rng(seed)
    predictions, targets = [], []
    for _ in range(images):
        count = rng.integers(0, 9)
        truth = random_boxes(rng, count)
        labels = rng.integers(0, len(CLASSES), count)
        again = np.flatnonzero(rng.random(count) < 0.8).repeat(rng.integers(1, 3))
        spread = 0.12 * (truth[again, 2:] - truth[again, :2]).repeat(2, axis=0).reshape(-1, 4)
        near = truth[again] + rng.normal(size=(len(again), 4)) * spread
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        wrong = rng.integers(0, 6)
        boxes = np.concatenate([near, random_boxes(rng, wrong)])
        found = np.concatenate([labels[again], rng.integers(0, len(CLASSES), wrong)])
        scores = rng.random(len(boxes)) if not ties else rng.integers(1, 6, len(boxes)) / 5
        crowd = rng.random(count) < (0.3 if crowds else 0)
        predictions.append({"boxes": tensor(boxes), "labels": torch.tensor(found), "scores": tensor(scores)})
        targets.append({"boxes": tensor(truth), "labels": torch.tensor(labels), "iscrowd": torch.tensor(crowd).long()})
    if masks:
        for image in (*predictions, *targets):
            image["masks"] = ellipses(image["boxes"])
    return predictions, targets


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    sides = np.exp(rng.uniform(np.log(6), np.log(180), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * (SIDE - sides)
    return np.concatenate([corner, corner + sides], axis=1)


def ellipses(boxes: Tensor) -> Tensor:
    """(N, 4) -> (N, SIDE, SIDE) bool, what fills each box as an ellipse does."""
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    x1, y1, x2, y2 = (boxes[:, i, None, None] for i in range(4))
    return ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1


def tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def coco_verdict(predictions: list[Image], targets: list[Image], kind: str, classes: int = 3) -> COCOeval:
    """pycocotools' evaluation of "bbox" or "segm", accumulated and summarised."""
    images = [{"id": i + 1, "height": SIDE, "width": SIDE} for i in range(len(targets))]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for i, (prediction, target) in enumerate(zip(predictions, targets, strict=True), start=1):
        for j, box in enumerate(target["boxes"].tolist()):
            shape = {"image_id": i, "category_id": int(target["labels"][j]), "bbox": xywh(box)}
            if "masks" in target:
                shape["segmentation"] = run_lengths(target["masks"][j])
            area = pycocotools.mask.area(shape["segmentation"]) if "masks" in target else box_area(box)
            crowd = int(target["iscrowd"][j])
            annotations.append({**shape, "id": len(annotations) + 1, "area": float(area), "iscrowd": crowd})
        for j, box in enumerate(prediction["boxes"].tolist()):
            shape = {"image_id": i, "category_id": int(prediction["labels"][j]), "bbox": xywh(box)}
            if kind == "segm":
                shape = {**shape, "segmentation": run_lengths(prediction["masks"][j])}
                del shape["bbox"]
            results.append({**shape, "score": float(prediction["scores"][j])})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        categories = [{"id": i, "name": str(i)} for i in range(classes)]
        truth.dataset = {"images": images, "annotations": annotations, "categories": categories, "info": {}}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def xywh(box: list[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def box_area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def run_lengths(mask: Tensor) -> dict[str, Any]:
    return dict(pycocotools.mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8))))
