"""How far the detections of two models are from each other."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from visionlora.tasks.outputs import TOLERANCE, Outputs, finite

_TIE = 1e-3
"""Of an intersection over union: so far the last digits of boxes reach."""
_SAME_SCORE = 1e-5
_SWAPPED = 50
"""One detection in so many may have changed places with one that it suppressed, of the same score."""


def detections_difference(found: Outputs, expected: Outputs, side: int, overlap: float) -> float:
    """The largest difference between detections that belong together, whatever their order.

    Tied scores come in any order, so each detection belongs to the nearest one of its class. Of coordinates the
    difference is relative to ``side``, the image's longest in pixels, and of scores absolute. Of a mask it is the share
    of its area: at its edge each pixel follows the box, whose last digits move it.

    A detection without a partner makes the difference infinite, unless the last digits alone decide whether it is
    there: its score is the lowest, where a list ends, or what suppressed it in the other list overlaps it by just as
    much as non-maximum suppression allows (or has a better score, and no partner for the same reason). Of every 50
    detections one may have changed places with another that overlaps it and has the same score to 5 digits: either
    suppresses the other. More would be boxes that are wrong.

    Args:
        found, expected: of one image.
        side: see above.
        overlap: the intersection over union from which on a detection suppresses another one.
    """
    if not len(found["scores"]) and not len(expected["scores"]):
        return 0.0
    lowest = float(torch.cat([found["scores"], expected["scores"]]).detach().min())
    pairs = _pairs(found, expected, side)
    found_alone = _without(len(found["scores"]), [row for row, _, _ in pairs])
    expected_alone = _without(len(expected["scores"]), [column for _, column, _ in pairs])
    if not _are_ties(found, expected, found_alone, expected_alone, lowest, overlap):
        return float("inf")
    if not _are_ties(expected, found, expected_alone, found_alone, lowest, overlap):
        return float("inf")
    distances = [max(distance, _mask_difference(found, expected, row, column)) for row, column, distance in pairs]
    return max(distances, default=0.0)


def _pairs(found: Outputs, expected: Outputs, side: int) -> list[tuple[int, int, float]]:
    """(index in found, index in expected, distance) of what belongs together, the best scores first."""
    distances = _distances(found, expected, side)
    pairs = []
    for column in expected["scores"].argsort(descending=True, stable=True).tolist() if len(distances) else []:
        row = int(distances[:, column].argmin())
        if distances[row, column] <= TOLERANCE:
            pairs.append((row, column, float(distances[row, column])))
            distances[row] = float("inf")
    return pairs


def _without(length: int, indices: list[int]) -> Tensor:
    """(length,) bool."""
    left = torch.ones(length, dtype=torch.bool)
    left[indices] = False
    return left


def _are_ties(
    own: Outputs, other: Outputs, own_alone: Tensor, other_alone: Tensor, lowest: float, overlap: float
) -> bool:
    """Whether the last digits explain everything in the one list that has no partner in the other."""
    swaps = len(own_alone) // _SWAPPED
    for index in own_alone.nonzero()[:, 0].tolist():
        score = own["scores"][index]
        shared = box_iou(own["boxes"][index][None].double(), other["boxes"].double())[0]
        by_a_hair = (shared <= overlap + _TIE) & (other["scores"] >= score - TOLERANCE)
        # Strictly better, so that two boxes never explain each other.
        by_another_tie = other_alone & (other["scores"] > score + TOLERANCE)
        rivals = (other["labels"] == own["labels"][index]) & (shared >= overlap - _TIE)
        if float(score) <= lowest + TOLERANCE or (rivals & (by_a_hair | by_another_tie)).any():
            continue
        swapped = rivals & other_alone & ((other["scores"] - score).abs() <= _SAME_SCORE)
        swaps -= 1
        if swaps < 0 or not swapped.any():
            return False
    return True


def _distances(found: Outputs, expected: Outputs, side: int) -> Tensor:
    boxes = (found["boxes"][:, None] - expected["boxes"]).double().abs().amax(dim=2) / side
    scores = (found["scores"][:, None] - expected["scores"]).double().abs()
    other = found["labels"][:, None] != expected["labels"]
    distances = torch.maximum(boxes, scores).masked_fill(other, float("inf"))
    return distances.detach().nan_to_num(nan=float("inf"))


def _mask_difference(found: Outputs, expected: Outputs, row: int, column: int) -> float:
    if "masks" not in expected:
        return 0.0
    a, b = found["masks"][row].double(), expected["masks"][column].double()
    if a.shape != b.shape:
        return float("inf")
    return finite(float((a - b).abs().sum() / torch.maximum(a, b).sum().clamp(min=1)))
