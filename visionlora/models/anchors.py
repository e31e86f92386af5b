"""Anchors: the boxes that a detector starts from on each level of its pyramid, and fitting them to a data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from visionlora.errors import InputError

RATIOS = (0.5, 1.0, 2.0)
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""RetinaNet's three sizes per octave (Lin et al. 2017, arXiv:1708.02002, section 4)."""
ROUNDS = 50
"""Of k-means; on the sets that it was tried on, nothing changes after 40."""


@dataclass(frozen=True)
class Anchors:
    """The anchors of each level, finest first; every level has as many.

    Attributes:
        sizes: square roots of the areas, in pixels of the image as the model sees it.
        aspect_ratios: height / width; each goes with each size.
    """

    sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[tuple[float, ...], ...]

    def generator(self) -> AnchorGenerator:
        """torchvision's module that lays them out over the maps; it rounds half sides to whole pixels."""
        return AnchorGenerator(self.sizes, self.aspect_ratios)


@dataclass(frozen=True)
class FittedAnchors:
    """Anchors for a data set, and how well its boxes are met, by the best anchor each, before and after.

    Attributes:
        anchors: for ``create_detector``.
        recall_before, recall_after: share of the boxes that are met with an IoU of 0.5 or more.
        iou_before, iou_after: mean IoU.
    """

    anchors: Anchors
    recall_before: float
    recall_after: float
    iou_before: float
    iou_after: float


def default_anchors(levels: Sequence[int], scales: Sequence[float] = SCALES) -> Anchors:
    """Sizes of ``4 * stride * scale`` on every level (level l has a stride of 2^l), with ratios 1:2, 1:1 and 2:1."""
    sizes = tuple(tuple(4 * 2**level * scale for scale in scales) for level in levels)
    return Anchors(sizes, (RATIOS,) * len(sizes))


def fit_anchors(boxes: Tensor, levels: Sequence[int], scales: Sequence[float] = SCALES) -> FittedAnchors:
    """Move the default anchors to where a data set's boxes are.

    This is k-means with the IoU as nearness, as in YOLOv2 (Redmon & Farhadi 2017, arXiv:1612.08242, section 2), under
    torchvision's rule that each size of a level goes with each of its ratios, and with the anchor at the place on
    the level's grid that is nearest to the box. It starts from the default anchors, not at random, so the result is
    always the same, and anchors that no box needs stay where they are. Of all rounds the one with the highest mean
    IoU counts whose recall is at least that of the default anchors.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2, in pixels of the images as the model sees them.
        levels: of the detector's pyramid.
        scales: of ``default_anchors``.

    Raises:
        InputError: no boxes, or an empty one.
    """
    if not len(boxes) or not (boxes[:, 2:] > boxes[:, :2]).all():
        raise InputError("anchors can be fitted to boxes with x1 < x2 and y1 < y2 only, and to one at least")
    anchors = best = default_anchors(levels, scales)
    ious = _ious(boxes, levels, anchors)
    before = after = _scores(ious)
    for _ in range(ROUNDS):
        anchors = _moved(boxes, anchors, ious)
        ious = _ious(boxes, levels, anchors)
        scores = _scores(ious)
        if scores[0] >= before[0] and scores[1] > after[1]:
            best, after = anchors, scores
    return FittedAnchors(best, before[0], after[0], before[1], after[1])


def _ious(boxes: Tensor, levels: Sequence[int], anchors: Anchors) -> Tensor:
    """IoU of each box with each anchor at the place of its grid nearest to the box: (N, levels, ratios, sizes)."""
    boxes = boxes.double()
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None, None]  # (N, 1, 1, 2)
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    found = []
    for level, cell in zip(levels, anchors.generator().cell_anchors, strict=True):
        offset = (centres - (centres / 2**level).round() * 2**level).abs()[:, None, None]
        own = (cell[:, 2:] - cell[:, :2]).double().unflatten(0, (len(anchors.aspect_ratios[0]), -1))  # (R, S, 2)
        overlap = torch.minimum(torch.minimum(sides, own), (sides + own) / 2 - offset).clamp(min=0).prod(dim=3)
        found.append(overlap / (sides.prod(dim=3) + own.prod(dim=2) - overlap))
    return torch.stack(found, dim=1)


def _scores(ious: Tensor) -> tuple[float, float]:
    """Share of boxes whose best anchor meets them with 0.5, and the mean IoU with the best."""
    best = ious.flatten(1).amax(dim=1)
    return float((best >= 0.5).double().mean()), float(best.mean())


def _moved(boxes: Tensor, anchors: Anchors, ious: Tensor) -> Anchors:
    """Every size and ratio at the (geometric) mean of the boxes whose best anchor it is part of."""
    ratios, sizes = ious.shape[2:]
    best = ious.flatten(1).argmax(dim=1)
    level, ratio, size = best // (ratios * sizes), best // sizes % ratios, best % sizes
    log_width, log_height = (boxes[:, 2:] - boxes[:, :2]).double().log().unbind(1)
    new_sizes = _means((log_width + log_height) / 2, level * sizes + size, anchors.sizes)
    new_ratios = _means(log_height - log_width, level * ratios + ratio, anchors.aspect_ratios)
    return Anchors(new_sizes, new_ratios)


def _means(logarithms: Tensor, places: Tensor, old: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """Geometric means of the values at each place of a table; where there is none, the old one stays."""
    table = torch.tensor(old, dtype=torch.float64)
    counts = torch.bincount(places, minlength=table.numel())
    sums = torch.bincount(places, logarithms, minlength=table.numel())
    means = torch.where(counts > 0, sums / counts.clamp(min=1), table.flatten().log()).exp().view_as(table)
    return tuple(tuple(round(value, 3) for value in row) for row in means.tolist())
