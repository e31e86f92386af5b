"""Scores against a plain loop over pixels."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from visionlora.data.segmentation.class_map import IGNORE
from visionlora.tasks.segmentation.metrics import SegmentationMetrics

CLASSES = ["road", "car", "wall", "sky", "never"]


def pictures(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Labels and targets of two sizes; ``sky`` is only found, ``never`` neither found nor true."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for size in ((2, 5, 7), (1, 4, 3)):
        target = torch.randint(0, 3, size, generator=generator)
        found = target.where(
            torch.rand(size, generator=generator) < 0.6, torch.randint(0, 4, size, generator=generator)
        )
        target[torch.rand(size, generator=generator) < 0.2] = IGNORE
        made.append((found, target))
    return made


def loop(made: list[tuple[Tensor, Tensor]]) -> list[list[int]]:
    matrix = [[0] * len(CLASSES) for _ in CLASSES]
    for found, target in made:
        for one, true in zip(found.flatten().tolist(), target.flatten().tolist(), strict=True):
            if true != IGNORE:
                matrix[true][one] += 1
    return matrix


def metrics_of(made: list[tuple[Tensor, Tensor]]) -> SegmentationMetrics:
    metrics = SegmentationMetrics(CLASSES)
    for found, target in made:
        metrics.update(found, target)
    return metrics


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_a_plain_loop(seed: int) -> None:
    made = pictures(seed)
    matrix = loop(made)
    metrics = metrics_of(made)
    assert metrics.confusion() == matrix
    assert metrics.details() == {"confusion": matrix}
    ious, accuracies = {}, {}
    for i, name in enumerate(CLASSES):
        true, found = sum(matrix[i]), sum(row[i] for row in matrix)
        ious[name] = matrix[i][i] / (true + found - matrix[i][i]) if true + found else math.nan
        accuracies[name] = matrix[i][i] / true if true else math.nan
    per_class = metrics.per_class()
    for key, expected in {"IoU": ious, "accuracy": accuracies}.items():
        there = {name: value for name, value in expected.items() if not math.isnan(value)}
        assert {name: scores[key] for name, scores in per_class.items() if key in scores} == pytest.approx(there)
    assert list(per_class) == CLASSES
    occurring = [iou for iou in ious.values() if not math.isnan(iou)]
    shown = [accuracy for accuracy in accuracies.values() if not math.isnan(accuracy)]
    assert (len(occurring), len(shown)) == (4, 3)
    right = sum(matrix[i][i] for i in range(len(CLASSES)))
    assert metrics.scores() == pytest.approx(
        {
            "mIoU": sum(occurring) / 4,
            "pixel_accuracy": right / sum(map(sum, matrix)),
            "mean_accuracy": sum(shown) / 3,
        }
    )
    assert tuple(metrics.scores()) == metrics.names


def test_the_mean_iou_is_torchmetrics() -> None:
    made = pictures(7)
    theirs = MulticlassJaccardIndex(len(CLASSES), ignore_index=IGNORE)
    for found, target in made:
        theirs.update(found, target)
    assert metrics_of(made).scores()["mIoU"] == pytest.approx(theirs.compute().item(), rel=1e-6)


def test_logits_count_as_their_largest() -> None:
    target = torch.randint(0, 5, (2, 4, 6))
    logits = torch.randn(2, 5, 4, 6)
    first, second = SegmentationMetrics(CLASSES), SegmentationMetrics(CLASSES)
    first.update(logits.bfloat16().float(), target)
    second.update(logits.bfloat16().float().argmax(dim=1), target)
    assert first.confusion() == second.confusion()


def test_logits_are_resized_to_targets_of_several_sizes() -> None:
    logits = torch.randn(2, 5, 4, 6)
    targets = [torch.randint(0, 5, (8, 12)), torch.randint(0, 5, (3, 7))]
    together, alone = SegmentationMetrics(CLASSES), SegmentationMetrics(CLASSES)
    together.update(logits, targets)
    for one, target in zip(logits, targets, strict=True):
        alone.update(F.interpolate(one[None], target.shape, mode="bilinear"), target[None])
    assert together.confusion() == alone.confusion()
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        together.update(logits, targets[:1])


def test_another_value_can_be_ignored() -> None:
    metrics = SegmentationMetrics(CLASSES, ignore=0)
    metrics.update(torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0, 1, 1]]]))
    assert metrics.scores()["pixel_accuracy"] == 0.5


def test_without_a_pixel_all_scores_are_0() -> None:
    metrics = SegmentationMetrics(CLASSES)
    metrics.update(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), IGNORE))
    assert metrics.scores() == {"mIoU": 0, "pixel_accuracy": 0, "mean_accuracy": 0}
    assert metrics.per_class()["road"] == {}


def test_counts_are_exact_beyond_what_float32_holds() -> None:
    metrics = SegmentationMetrics(["a", "b"])
    ones = torch.ones(1, 2**12, 2**12 + 1, dtype=torch.int64)
    metrics.update(ones, ones)
    assert metrics.confusion() == [[0, 0], [0, 2**24 + 2**12]]


@pytest.mark.parametrize(
    ("found", "target", "message"),
    [
        (torch.zeros(1, 2, 3), torch.zeros(1, 4, 4, dtype=torch.int64), r"resize the logits"),
        (torch.full((1, 2, 2), 5), torch.zeros(1, 2, 2, dtype=torch.int64), "labels from 5 to 5 of 5 classes"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), 9), "labels from 9 to 9 of 5 classes"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), -1), "labels from -1"),
    ],
)
def test_what_can_not_be_counted_is_refused(found: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationMetrics(CLASSES).update(found, target)
