"""Which detections are right, and the precision and recall that each score threshold gives.

The matching is COCO's (pycocotools, ``COCOeval.evaluateImg``): detections take their object in the order of their
scores, crowds are objects that nobody has to find and that any number of detections may lie in.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

IOU = 0.5
"""Overlap from which on a detection is right."""

MAX_DETECTIONS = 100
"""Detections of one class that count in one image, the best ones; as in COCO."""


@dataclass(frozen=True)
class Threshold:
    """What is reached by keeping the detections whose score is at least ``score``."""

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one class, with one point for each threshold that makes a difference.

    Attributes:
        scores: (T,) the thresholds, falling; a detection is kept if its score is at least the threshold.
        precision: (T,) share of the kept detections that are right.
        recall: (T,) share of the objects that are found, rising.
        objects: how many there are, crowds left out; never 0.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    objects: int

    @property
    def best(self) -> Threshold | None:
        """The threshold with the best F1, the highest if there are several; None if no detection is right."""
        if not self.recall.any():
            return None
        total = self.precision + self.recall
        f1 = 2 * self.precision * self.recall / np.where(total > 0, total, 1)  # (T,)
        at = int(f1.argmax())
        return Threshold(float(self.scores[at]), float(self.precision[at]), float(self.recall[at]), float(f1[at]))


@dataclass(frozen=True)
class ImageResult:
    """What was detected in one image, and what is there.

    Attributes:
        labels, scores: (D,) of the detections.
        shapes: D boxes as x, y, width, height, or D masks as COCO's run lengths (``size`` and ``counts``).
        true_labels: (G,) of the objects.
        true_shapes: G, as ``shapes``.
        crowd: (G,) bool.
    """

    labels: np.ndarray
    scores: np.ndarray
    shapes: Sequence[Any]
    true_labels: np.ndarray
    true_shapes: Sequence[Any]
    crowd: np.ndarray


def class_curves(images: Iterable[ImageResult], classes: Sequence[str]) -> dict[str, Curve]:
    """Class name -> its curve over all images; classes without an object are left out."""
    scores: list[list[np.ndarray]] = [[] for _ in classes]
    right: list[list[np.ndarray]] = [[] for _ in classes]
    objects = [0] * len(classes)
    for image in images:
        for label in np.union1d(image.labels, image.true_labels).tolist():
            mine = np.flatnonzero(image.labels == label)
            mine = mine[np.argsort(-image.scores[mine], kind="stable")][:MAX_DETECTIONS]
            theirs = np.flatnonzero(image.true_labels == label)
            crowd = image.crowd[theirs]
            iou = overlaps(
                [image.shapes[i] for i in mine.tolist()], [image.true_shapes[i] for i in theirs.tolist()], crowd
            )
            matched = match(iou, crowd)
            counts = ~np.isin(matched, np.flatnonzero(crowd))  # what lies in a crowd is neither right nor wrong
            scores[label].append(image.scores[mine][counts])
            right[label].append(matched[counts] >= 0)
            objects[label] += int((~crowd).sum())
    return {
        name: precision_recall(np.concatenate(scores[label]), np.concatenate(right[label]), objects[label])
        for label, name in enumerate(classes)
        if objects[label]
    }


def match(iou: np.ndarray, crowd: np.ndarray, threshold: float = IOU) -> np.ndarray:
    """Give each detection of a class in an image its object.

    A detection takes the free object that it overlaps most, and no other may have it then. One that overlaps no free
    object enough, but lies in a crowd, is neither right nor wrong.

    Args:
        iou: (D, G) overlaps, detections by falling score; a crowd's is the share of the detection that lies in it.
        crowd: (G,) bool.

    Returns:
        (D,) index of the object, -1 for none. A detection is right if its object is no crowd.
    """
    matched = np.full(len(iou), -1)
    free = ~crowd
    for detection, overlaps in enumerate(iou):
        for candidates in (free, crowd):
            enough = np.flatnonzero(candidates & (overlaps >= threshold))
            if len(enough):
                # Of equal overlaps COCO takes the last.
                matched[detection] = enough[len(enough) - 1 - overlaps[enough][::-1].argmax()]
                break
        if matched[detection] >= 0:
            free[matched[detection]] = False
    return matched


def precision_recall(scores: np.ndarray, right: np.ndarray, objects: int) -> Curve:
    """The curve of one class over all images.

    Args:
        scores: (D,) of all detections but those that lie in a crowd, in any order.
        right: (D,) bool.
        objects: how many there are, crowds left out; at least 1.
    """
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    kept = np.arange(1, len(scores) + 1)
    # A threshold keeps all detections of an equal score or none of them.
    last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, dtype=bool)
    return Curve(scores[last], (hits / kept)[last], (hits / objects)[last], objects)


def overlaps(detections: Sequence[Any], objects: Sequence[Any], crowd: np.ndarray) -> np.ndarray:
    """Intersection over union, (D, G); for a crowd, the share of the detection that lies in it.

    Args:
        detections, objects: shapes as in ``ImageResult``.
        crowd: (G,) bool.
    """
    from faster_coco_eval.core import mask

    if not len(detections) or not len(objects):
        return np.zeros((len(detections), len(objects)))
    found = mask.iou(list(detections), list(objects), crowd.astype(int).tolist())
    return np.asarray(found).reshape(len(detections), len(objects))
