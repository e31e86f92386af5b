"""The matching and the curves against slow loops that follow COCO's definition word by word."""

import numpy as np
import pytest

from visionlora.tasks.detection.curves import Threshold, match, overlaps, precision_recall


def slow_match(iou: list[list[float]], crowd: list[bool], threshold: float) -> list[int]:
    """As pycocotools' evaluateImg has it: real objects first, crowds last, a detection at a time."""
    order = sorted(range(len(crowd)), key=lambda g: crowd[g])
    taken: set[int] = set()
    matched = []
    for row in iou:
        best, found = threshold, -1
        for g in order:
            if g in taken and not crowd[g]:
                continue
            if found >= 0 and not crowd[found] and crowd[g]:
                break
            if row[g] < best:
                continue
            best, found = row[g], g
        if found >= 0:
            taken.add(found)
        matched.append(found)
    return matched


@pytest.mark.parametrize("seed", range(20))
def test_matching_is_that_of_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        detections, objects = rng.integers(0, 9), rng.integers(0, 7)
        # few values, so that overlaps are often equal, or just at the threshold
        iou = rng.integers(0, 11, (detections, objects)) / 10
        crowd = rng.random(objects) < 0.3
        threshold = rng.choice([0.3, 0.5, 0.7])
        found = match(iou, crowd, threshold)
        assert found.tolist() == slow_match(iou.tolist(), crowd.tolist(), threshold)
        hits = found[np.isin(found, np.flatnonzero(~crowd))]
        assert len(set(hits.tolist())) == len(hits)


def test_a_second_detection_of_an_object_is_wrong_but_may_lie_in_a_crowd() -> None:
    iou = np.array([[0.9, 0.6], [0.8, 0.0], [0.7, 0.9], [0.7, 0.9]])
    assert match(iou, np.array([False, True])).tolist() == [0, -1, 1, 1]
    assert match(iou, np.array([False, False])).tolist() == [0, -1, 1, -1]


@pytest.mark.parametrize("seed", range(10))
def test_a_curve_is_that_of_counting_at_every_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    scores, right = rng.integers(0, 12, count) / 12, rng.random(count) < 0.5
    objects = int(right.sum() + rng.integers(1, 5))
    curve = precision_recall(scores, right, objects)
    points, best = [], None
    for threshold in sorted(set(scores.tolist()), reverse=True):
        kept = [bool(hit) for score, hit in zip(scores, right, strict=True) if score >= threshold]
        precision, recall = sum(kept) / len(kept), sum(kept) / objects
        points.append((threshold, precision, recall))
        f1 = 2 * sum(kept) / (len(kept) + objects)
        if f1 > (best.f1 if best else 0) + 1e-12:
            best = Threshold(threshold, precision, recall, f1)
    columns = curve.scores, curve.precision, curve.recall
    assert np.stack(columns, axis=1) == pytest.approx(np.array(points))
    assert curve.objects == objects
    if best is None:
        assert curve.best is None
    else:
        assert curve.best is not None
        assert vars(curve.best) == pytest.approx(vars(best))


def test_without_detections_a_curve_is_empty_and_suggests_nothing() -> None:
    curve = precision_recall(np.zeros(0), np.zeros(0, dtype=bool), 3)
    assert (len(curve.scores), len(curve.precision), len(curve.recall)) == (0, 0, 0)
    assert curve.best is None


def test_of_equally_good_thresholds_the_highest_is_suggested() -> None:
    # one of two right: F1 2/3; two of four right: F1 2/3
    curve = precision_recall(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, False, True]), 2)
    assert curve.best == Threshold(0.9, 1.0, 0.5, pytest.approx(2 / 3))


def test_overlaps_of_boxes_are_intersection_over_union_and_a_crowds_over_the_detection() -> None:
    found = overlaps([[0, 0, 4, 4]], [[2, 2, 4, 4], [2, 2, 4, 4]], np.array([False, True]))
    assert found == pytest.approx(np.array([[4 / 28, 4 / 16]]))
    assert overlaps([], [[0, 0, 1, 1]], np.array([False])).shape == (0, 1)
    assert overlaps([[0, 0, 1, 1]] * 2, [], np.zeros(0, dtype=bool)).shape == (2, 0)
