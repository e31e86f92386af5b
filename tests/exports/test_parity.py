"""What counts as the same outputs, and what does not."""

import math

import pytest
import torch

from visionlora.tasks.detection.parity import detections_difference
from visionlora.tasks.outputs import Outputs, logits_difference


def detections(*rows: tuple[float, float, float, float, int, float]) -> Outputs:
    table = torch.tensor(rows).reshape(-1, 6)
    return {"boxes": table[:, :4], "labels": table[:, 4].long(), "scores": table[:, 5]}


A = (10.0, 10.0, 40.0, 40.0, 1, 0.9)
B = (50.0, 50.0, 90.0, 90.0, 2, 0.9)
C = (60.0, 10.0, 90.0, 30.0, 1, 0.5)
LAST = (5.0, 60.0, 25.0, 90.0, 2, 0.3)


def difference(found: Outputs, expected: Outputs) -> float:
    return detections_difference(found, expected, side=100, overlap=0.5)


def test_logits_differ_by_their_largest_share() -> None:
    a = {"logits": torch.tensor([1.0, -200.0, 3.0])}
    assert logits_difference(a, a) == 0
    assert logits_difference({"logits": torch.tensor([1.2, -200.0, 3.0])}, a) == pytest.approx(0.001)
    small = {"logits": torch.tensor([0.1, 0.2])}
    assert logits_difference({"logits": torch.tensor([0.1, 0.3])}, small) == pytest.approx(0.1)


def test_logits_of_another_shape_or_nan_never_agree() -> None:
    a = {"logits": torch.ones(3)}
    assert math.isinf(logits_difference({"logits": torch.ones(2)}, a))
    assert math.isinf(logits_difference({"logits": torch.tensor([1.0, float("nan"), 1.0])}, a))


def test_the_order_of_detections_does_not_matter() -> None:
    assert difference(detections(A, B, C, LAST), detections(LAST, C, B, A)) == 0


def test_no_detections_agree_with_none_alone() -> None:
    assert difference(detections(), detections()) == 0
    assert math.isinf(difference(detections(), detections(A, LAST)))
    assert math.isinf(difference(detections(A, LAST), detections()))


@pytest.mark.parametrize(("place", "value"), [(0, 0.005), (3, -0.005), (5, 0.00005)])
def test_small_differences_are_measured(place: int, value: float) -> None:
    moved = list(A)
    moved[place] += value
    found = difference(detections(tuple(moved), LAST), detections(A, LAST))  # type: ignore[arg-type]
    assert found == pytest.approx(abs(value) / (1 if place == 5 else 100), rel=0.05)


@pytest.mark.parametrize(("place", "value"), [(0, 0.5), (4, 1), (5, -0.01)])
def test_another_box_class_or_score_is_another_detection(place: int, value: float) -> None:
    moved = list(A)
    moved[place] += value
    assert math.isinf(difference(detections(tuple(moved), LAST), detections(A, LAST)))  # type: ignore[arg-type]


def test_one_detection_is_no_partner_of_two() -> None:
    assert math.isinf(difference(detections(A, LAST), detections(A, A, LAST)))
    assert math.isinf(difference(detections(A, A, LAST), detections(A, LAST)))


def test_the_last_of_a_list_may_be_missing() -> None:
    assert difference(detections(A, C), detections(A, C, LAST)) == 0
    assert math.isinf(difference(detections(A, LAST), detections(A, C, LAST)))


def test_suppression_by_a_hair_is_a_tie() -> None:
    # Two boxes that share 0.5 of their union, up to the last digits.
    strong, weak = (0.0, 0.0, 30.0, 10.0, 1, 0.9), (10.0, 0.0, 40.0, 10.0, 1, 0.8)
    assert difference(detections(strong, LAST), detections(strong, weak, LAST)) == 0
    clear = (12.0, 0.0, 42.0, 10.0, 1, 0.8)
    assert math.isinf(difference(detections(strong, LAST), detections(strong, clear, LAST)))
    other_class = (10.0, 0.0, 40.0, 10.0, 2, 0.8)
    assert math.isinf(difference(detections(strong, LAST), detections(strong, other_class, LAST)))


def test_what_a_tied_box_suppresses_is_a_tie_too() -> None:
    strong, tied = (0.0, 0.0, 30.0, 10.0, 1, 0.9), (10.0, 0.0, 40.0, 10.0, 1, 0.8)
    third = (18.0, 0.0, 48.0, 10.0, 1, 0.7)
    assert difference(detections(strong, tied, LAST), detections(strong, third, LAST)) == 0
    assert difference(detections(strong, third, LAST), detections(strong, tied, LAST)) == 0
    away = (30.0, 0.0, 60.0, 10.0, 1, 0.7)
    assert math.isinf(difference(detections(strong, tied, LAST), detections(strong, away, LAST)))


def test_two_boxes_do_not_explain_each_other() -> None:
    one, other = (0.0, 0.0, 30.0, 10.0, 1, 0.9), (2.0, 0.0, 32.0, 10.0, 1, 0.90001)
    assert math.isinf(difference(detections(one, LAST), detections(other, LAST)))
    assert math.isinf(difference(detections(one, LAST), detections((*other[:5], 0.8), LAST)))  # type: ignore[arg-type]


def test_masks_differ_by_the_share_of_their_area() -> None:
    a, b = detections(A, LAST), detections(A, LAST)
    a["masks"] = torch.zeros(2, 1, 50, 50)
    a["masks"][:, :, 10:30, 10:30] = 1
    b["masks"] = a["masks"].clone()
    assert difference(a, b) == 0
    b["masks"][0, 0, 10, 10] = 0
    assert difference(a, b) == pytest.approx(1 / 400)
    b["masks"] = torch.zeros(2, 1, 40, 50)
    assert math.isinf(difference(a, b))


def test_of_many_boxes_a_few_may_have_suppressed_each_other() -> None:
    many = [(0.0, 3.0 * index, 2.0, 3.0 * index + 2, 1, 0.5 + index / 1000) for index in range(99)]
    pair = (0.0, 0.0, 30.0, 10.0, 2, 0.9), (2.0, 0.0, 32.0, 10.0, 2, 0.900005)
    swapped = detections(*many, pair[0]), detections(*many, pair[1])
    assert difference(*swapped) < 1e-4
    for part in (2, 10):
        assert math.isinf(difference(*(detections(*many[:part], one, LAST) for one in pair)))
    clear = (2.0, 0.0, 32.0, 10.0, 2, 0.9001)
    assert math.isinf(difference(detections(*many, pair[0]), detections(*many, clear)))
    shifted = [(x1 + 0.5, y1, x2 + 0.5, y2, label, score) for x1, y1, x2, y2, label, score in many]
    assert math.isinf(difference(detections(*shifted), detections(*many)))
