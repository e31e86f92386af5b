"""From a one-stage detector's raw heads to its objects, with numpy alone.

The graph takes ``images`` (N, 3, H, W), RGB in 0 to 1, whose sides are multiples of ``multiple``, and gives ``logits``
(N, A, K) and ``deltas`` (N, A, 4) of its A anchors, of FCOS ``centerness`` (N, A, 1) too, and, the same for all images,
``anchors`` (A, 4) as x1, y1, x2, y2 and ``levels`` (A,), the map of the pyramid that each belongs to.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_LARGEST = math.log(1000 / 16)
"""What torchvision clamps the logarithm of a box's growth to."""


def on_canvas(images: Sequence[np.ndarray], about: dict[str, Any]) -> np.ndarray:
    """Images (3, h, w) of one shape in 0 to 1 -> (N, 3, H, W), with the mean colour to the right and below."""
    _, height, width = images[0].shape
    tall, wide = (math.ceil(side / about["multiple"]) * about["multiple"] for side in (height, width))
    canvas = np.empty((len(images), 3, tall, wide), np.float32)
    canvas[:] = np.array(about["mean"], np.float32)[:, None, None]
    for index, image in enumerate(images):
        canvas[index, :, :height, :width] = image
    return canvas


def objects(
    outputs: dict[str, np.ndarray], index: int, height: int, width: int, about: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What one image shows: boxes (M, 4) in its pixels, labels (M,) as the model counts, scores (M,), the best first.

    Args:
        outputs: of the graph, by name.
        index: of the image among the N.
        height, width: of the image before it came on the canvas.
        about: the settings of the file's field ``about``, under ``heads``.
    """
    fixed_width, fixed_height = about["fixed_size"] or (width, height)
    scores = _scores({name: value[index] for name, value in outputs.items() if name in _PER_IMAGE}, about["family"])
    anchors, labels, kept = _candidates(scores, outputs["levels"], about)
    boxes = _boxes(outputs["deltas"][index][anchors], outputs["anchors"][anchors], about)
    boxes = np.clip(boxes, 0, np.array([fixed_width, fixed_height] * 2, np.float32))
    best = _suppressed(boxes, labels, kept, about["nms_thresh"], about["detections_per_img"])
    scale = np.array([width / fixed_width, height / fixed_height] * 2, np.float32)
    return boxes[best] * scale, labels[best], kept[best]


_PER_IMAGE = ("logits", "centerness")


def _scores(outputs: dict[str, np.ndarray], family: str) -> np.ndarray:
    """(A, K)."""
    logits = outputs["logits"]
    if family == "ssd":
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
        result[:, 0] = 0  # the background
        return result
    if family == "fcos":
        return np.sqrt(_sigmoid(logits) * _sigmoid(outputs["centerness"]))
    return _sigmoid(logits)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(values))
    result: np.ndarray = np.where(values >= 0, 1, small) / (1 + small)
    return result


def _candidates(
    scores: np.ndarray, levels: np.ndarray, about: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Anchors, labels and scores of the best pairs: of each level, or, of SSD, of each class."""
    anchors, labels = (scores > about["score_thresh"]).nonzero()
    found = scores[anchors, labels]
    groups = labels if about["family"] == "ssd" else levels[anchors]
    chosen = [_best(found, (groups == group).nonzero()[0], about["topk_candidates"]) for group in np.unique(groups)]
    order = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return anchors[order], labels[order], found[order]


def _best(scores: np.ndarray, among: np.ndarray, most: int) -> np.ndarray:
    result: np.ndarray = among[np.argsort(-scores[among], kind="stable")[:most]]
    return result


def _boxes(deltas: np.ndarray, anchors: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    """(M, 4) boxes of deltas (M, 4) to anchors (M, 4)."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + sides / 2
    if about["family"] == "fcos":
        reach = deltas * np.concatenate([sides, sides], axis=1)
        return np.concatenate([centres - reach[:, :2], centres + reach[:, 2:]], axis=1)
    moves = deltas / np.array(about["weights"], np.float32)
    centres = centres + moves[:, :2] * sides
    half = np.exp(np.minimum(moves[:, 2:], _LARGEST)).astype(np.float32) * sides / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def _suppressed(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, overlap: float, most: int) -> np.ndarray:
    """Indices of what non-maximum suppression keeps in each class, the best first, and ``most`` of them at most."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < most:
        first, left = left[0], left[1:]
        kept.append(int(first))
        top = np.maximum(boxes[first, :2], boxes[left, :2])
        bottom = np.minimum(boxes[first, 2:], boxes[left, 2:])
        shared = np.clip(bottom - top, 0, None).prod(axis=1)
        # Multiplied, so that two empty boxes are no division by zero.
        over = shared > overlap * (areas[first] + areas[left] - shared)
        left = left[~(over & (labels[left] == labels[first]))]
    return np.array(kept, np.int64)
