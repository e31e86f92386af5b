"""Where the labels of boxes go so that they can be read: inside the image, and clear of each other."""

import numpy as np

_SHIFTS = 8
"""How many label heights a label may move away from its box to be clear of the others."""


def place_labels(sizes: np.ndarray, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Choose a place for each label, the first ones first.

    Best is above the box at its left, then below it, then inside; a label moves away from its box only where it would
    cover another label. What it costs to cover other boxes, the own one, and to be away is weighed.

    Args:
        sizes: (N, 2) width and height of the labels in pixels, none larger than the image.
        boxes: (N, 4) as x1, y1, x2, y2, inside the image.
        width, height: of the image.

    Returns:
        (N, 4) the labels' rectangles as x1, y1, x2, y2, inside the image.
    """
    placed = np.zeros((len(sizes), 4))
    for i, (size, box) in enumerate(zip(sizes, boxes, strict=True)):
        corners = _candidates(size, box).clip(0, np.array([width, height]) - size)
        rectangles = np.concatenate([corners, corners + size], axis=1)  # (C, 4)
        area = size.prod()
        over_labels = _intersections(rectangles, placed[:i]).sum(axis=1) / area
        over_boxes = _intersections(rectangles, np.delete(boxes, i, axis=0)).sum(axis=1) / area
        over_own = _intersections(rectangles, boxes[i : i + 1]).sum(axis=1) / area
        away = _distances(rectangles, box) / size[1]
        rank = np.arange(len(corners)) / len(corners)  # settles what is equal in the order of the candidates
        cost = 20 * over_labels + over_boxes.clip(max=1.5) + 0.6 * over_own + 0.5 * away + 0.3 * rank
        placed[i] = rectangles[cost.argmin()]
    return placed


def _candidates(size: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(C, 2) corners of a label, best first."""
    (w, h), (x1, y1, x2, y2) = size, box
    rows = [y1 - h, y2, y1, y2 - h]
    near = [(x, y) for y in rows for x in (x1, x2 - w)]
    beside = [(x, y) for x in (x2, x1 - w) for y in (y1, y2 - h)]
    away = [(x, y) for k in range(1, _SHIFTS + 1) for y in (y1 - (k + 1) * h, y2 + k * h) for x in (x1, x2 - w)]
    along = [(x, y1 + k * h) for k in range(1, _SHIFTS + 1) for x in (x2, x1 - w)]
    return np.array([*near, *beside, *away, *along])


def _intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas of overlap, (A, B), of rectangles (A, 4) and (B, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap: np.ndarray = (high - low).clip(min=0).prod(axis=2)
    return overlap


def _distances(rectangles: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Gaps in pixels, (A,), between rectangles (A, 4) and a box; 0 where they touch."""
    gaps = np.maximum(rectangles[:, :2] - box[2:], box[:2] - rectangles[:, 2:]).clip(min=0)  # (A, 2)
    distance: np.ndarray = np.hypot(gaps[:, 0], gaps[:, 1])
    return distance
