"""Scores against plain loops over numpy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from visionlora.tasks.classification.metrics import ClassificationMetrics

CLASSES = ["a", "b", "c", "d", "e", "f", "g"]


def random_batches(classes: int, images: int = 83, batch: int = 16) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits that are right more often than not, in batches, the last of them smaller."""
    labels = torch.randint(0, classes, (images,))
    logits = torch.randn(images, classes) + 1.5 * F.one_hot(labels, classes)
    return list(zip(logits.split(batch), labels.split(batch), strict=True))


def evaluated(
    classes: list[str], batches: list[tuple[torch.Tensor, torch.Tensor]], multilabel: bool = False
) -> ClassificationMetrics:
    metrics = ClassificationMetrics(classes, multilabel)
    for logits, labels in batches:
        metrics.update(logits, labels)
    return metrics


def joined(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    return torch.cat([logits for logits, _ in batches]).numpy(), torch.cat([labels for _, labels in batches]).numpy()


def counts(hit: np.ndarray, truth: np.ndarray) -> tuple[int, int, int]:
    """True positives, false positives, false negatives of one class."""
    both = int(sum(1 for h, t in zip(hit, truth, strict=True) if h and t))
    return both, int(hit.sum()) - both, int(truth.sum()) - both


def precision_recall_f1(tp: int, fp: int, fn: int) -> tuple[float, float, float]:
    return (
        tp / (tp + fp) if tp + fp else 0.0,
        tp / (tp + fn) if tp + fn else 0.0,
        2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
    )


def test_single_label_scores_are_those_of_a_plain_loop() -> None:
    batches = random_batches(len(CLASSES))
    metrics = evaluated(CLASSES, batches)
    logits, labels = joined(batches)
    ranked = np.argsort(-logits, axis=1)
    scores = metrics.scores()
    n = len(labels)
    assert scores["top1"] == pytest.approx(sum(ranked[i, 0] == labels[i] for i in range(n)) / n)
    assert scores["top5"] == pytest.approx(sum(labels[i] in ranked[i, :5] for i in range(n)) / n)
    per_class = metrics.per_class()
    assert list(per_class) == CLASSES
    f1s = []
    for index, name in enumerate(CLASSES):
        precision, recall, f1 = precision_recall_f1(*counts(ranked[:, 0] == index, labels == index))
        assert per_class[name] == pytest.approx({"precision": precision, "recall": recall, "f1": f1})
        f1s.append(f1)
    assert scores["macro_f1"] == pytest.approx(sum(f1s) / len(f1s))
    assert scores["loss"] == pytest.approx(float(F.cross_entropy(torch.tensor(logits), torch.tensor(labels))))


def test_rows_of_the_confusion_matrix_are_the_true_classes() -> None:
    batches = random_batches(len(CLASSES))
    logits, labels = joined(batches)
    expected = np.zeros((len(CLASSES), len(CLASSES)), dtype=int)
    for row, truth in zip(logits, labels, strict=True):
        expected[truth, row.argmax()] += 1
    assert (expected != expected.T).any()
    assert evaluated(CLASSES, batches).confusion() == expected.tolist()


def test_the_calibration_error_is_that_of_fifteen_bins_by_hand() -> None:
    batches = random_batches(4, images=200)
    logits, labels = joined(batches)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert evaluated(CLASSES[:4], batches).scores()["calibration_error"] == pytest.approx(error, abs=1e-6)


def test_a_class_that_is_neither_there_nor_predicted_does_not_count_in_the_macro_f1() -> None:
    logits = torch.tensor([[5.0, 0, 0], [0, 5, 0]])
    metrics = evaluated(["a", "b", "never"], [(logits, torch.tensor([0, 1]))])
    assert metrics.scores()["macro_f1"] == 1.0
    assert metrics.per_class()["never"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_with_few_classes_there_is_no_top5() -> None:
    assert "top5" not in evaluated(CLASSES[:5], random_batches(5)).scores()
    assert "top5" in evaluated(CLASSES[:6], random_batches(6)).scores()


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_monitors_to_choose_from_are_scores_that_rise(multilabel: bool) -> None:
    metrics = ClassificationMetrics(CLASSES, multilabel)
    assert not {"loss", "calibration_error"} & set(metrics.names)
    labels = torch.arange(7) if not multilabel else torch.eye(7)
    metrics.update(20 * torch.eye(7) - 10, labels)
    scores = metrics.scores()
    assert all(scores[name] == 1.0 for name in metrics.names)


def test_scores_do_not_depend_on_how_images_are_batched() -> None:
    batches = random_batches(len(CLASSES))
    whole = [(torch.cat([logits for logits, _ in batches]), torch.cat([labels for _, labels in batches]))]
    assert evaluated(CLASSES, batches).scores() == pytest.approx(evaluated(CLASSES, whole).scores())


def test_half_precision_logits_are_scored() -> None:
    scores = evaluated(CLASSES, [(logits.bfloat16(), labels) for logits, labels in random_batches(7)]).scores()
    assert all(math.isfinite(value) for value in scores.values())


def random_multilabel(images: int = 60, classes: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    labels = (torch.rand(images, classes) < 0.4).float()
    labels[0] = 0
    logits = torch.randn(images, classes) + 1.5 * (labels - 0.5)
    return list(zip(logits.split(16), labels.split(16), strict=True))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Sum over the ranks of positives of precision there, over the number of positives (scores without ties)."""
    ranked = truth[np.argsort(-scores)]
    hits = np.cumsum(ranked)
    return float(sum(hits[i] / (i + 1) for i in range(len(ranked)) if ranked[i]) / ranked.sum())


def test_multilabel_scores_are_those_of_a_plain_loop() -> None:
    batches = random_multilabel()
    metrics = evaluated(CLASSES[:4], batches, multilabel=True)
    logits, labels = joined(batches)
    scores, per_class = metrics.scores(), metrics.per_class()
    precisions = [average_precision(logits[:, i], labels[:, i]) for i in range(4)]
    assert scores["mAP"] == pytest.approx(sum(precisions) / 4, abs=1e-6)
    found = logits > 0
    each = [counts(found[:, i], labels[:, i] == 1) for i in range(4)]
    for index, name in enumerate(CLASSES[:4]):
        precision, recall, f1 = precision_recall_f1(*each[index])
        assert per_class[name] == pytest.approx({"precision": precision, "recall": recall, "f1": f1})
    assert scores["macro_f1"] == pytest.approx(sum(precision_recall_f1(*one)[2] for one in each) / 4)
    together = tuple(sum(one[i] for one in each) for i in range(3))
    assert scores["micro_f1"] == pytest.approx(precision_recall_f1(*together)[2])
    assert scores["exact_match"] == pytest.approx((found == labels).all(axis=1).mean())
    expected = F.binary_cross_entropy_with_logits(torch.tensor(logits), torch.tensor(labels))
    assert scores["loss"] == pytest.approx(float(expected), rel=1e-6)


def test_the_multilabel_confusion_is_one_table_per_class() -> None:
    batches = random_multilabel()
    logits, labels = joined(batches)
    expected = []
    for index in range(4):
        tp, fp, fn = counts(logits[:, index] > 0, labels[:, index] == 1)
        expected.append([[len(labels) - tp - fp - fn, fp], [fn, tp]])
    assert evaluated(CLASSES[:4], batches, multilabel=True).confusion() == expected
