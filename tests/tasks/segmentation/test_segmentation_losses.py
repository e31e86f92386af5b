"""Losses against plain loops and libraries; what is ignored has no part in them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassF1Score
from torchvision.ops import sigmoid_focal_loss

from visionlora.data.segmentation.class_map import IGNORE
from visionlora.errors import InputError
from visionlora.tasks.segmentation.losses import (
    LOSSES,
    cross_entropy,
    dice,
    focal,
    median_frequency_weights,
    segmentation_loss,
)

WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 4.0])


def batch(seed: int = 0, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits (2, classes, 5, 6) and a target that lacks the last class and ignores some."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes - 1, (2, 5, 6), generator=generator)
    target[torch.rand(2, 5, 6, generator=generator) < 0.3] = IGNORE
    return logits.float(), target


def pixels(logits: Tensor, target: Tensor) -> list[tuple[list[float], int]]:
    """Probabilities and class of each pixel that counts."""
    found = []
    for n, row, column in torch.nonzero(target != IGNORE).tolist():
        scores = [math.exp(value) for value in logits[n, :, row, column].double().tolist()]
        found.append(([score / sum(scores) for score in scores], int(target[n, row, column])))
    return found


def loop_focal(logits: Tensor, target: Tensor, gamma: float, weights: list[float]) -> float:
    total = norm = 0.0
    for scores, label in pixels(logits, target):
        total += -math.log(scores[label]) * (1 - scores[label]) ** gamma * weights[label]
        norm += weights[label]
    return total / norm


def loop_dice(logits: Tensor, target: Tensor) -> float:
    found = pixels(logits, target)
    losses = []
    for label in sorted({true for _, true in found}):
        overlap = sum(scores[label] for scores, true in found if true == label)
        size = sum(scores[label] for scores, _ in found) + sum(true == label for _, true in found)
        losses.append(1 - 2 * overlap / size)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_losses_equal_plain_loops(seed: int, weights: Tensor | None) -> None:
    logits, target = batch(seed)
    plain = [1.0] * 4 if weights is None else weights.tolist()
    assert cross_entropy(logits, target, weights).item() == pytest.approx(
        loop_focal(logits, target, 0, plain), rel=1e-5
    )
    for gamma in (0.5, 1, 2):
        theirs = loop_focal(logits, target, gamma, plain)
        assert focal(logits, target, gamma, weights).item() == pytest.approx(theirs, rel=1e-5)
    assert dice(logits, target).item() == pytest.approx(loop_dice(logits, target), rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs(weights: Tensor | None) -> None:
    logits, target = batch()
    theirs = F.cross_entropy(logits, target, weights, ignore_index=IGNORE)
    torch.testing.assert_close(cross_entropy(logits, target, weights), theirs)
    torch.testing.assert_close(focal(logits, target, 0, weights), theirs)


def test_focal_of_two_classes_is_torchvisions() -> None:
    score = torch.randn(2, 5, 6)
    target = torch.randint(0, 2, (2, 5, 6))
    theirs = sigmoid_focal_loss(score, target.float(), alpha=-1, gamma=2, reduction="mean")
    ours = focal(torch.stack([torch.zeros_like(score), score], dim=1), target, 2)
    torch.testing.assert_close(ours, theirs)


def test_dice_of_hard_decisions_is_torchmetrics_f1() -> None:
    target = torch.randint(0, 4, (1, 20, 20))
    found = target.where(torch.rand(1, 20, 20) < 0.7, torch.randint(0, 4, (1, 20, 20)))
    theirs = MulticlassF1Score(4, average="macro")(found, target)
    logits = 1000 * F.one_hot(found, 4).permute(0, 3, 1, 2).float()
    assert dice(logits, target).item() == pytest.approx(1 - theirs.item(), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_ignored_changes_nothing_and_gets_no_gradient(name: str) -> None:
    logits, target = batch()
    other = logits.where((target != IGNORE)[:, None], torch.randn_like(logits) * 9).requires_grad_()
    first = segmentation_loss(logits, target, {name: 1}, WEIGHTS)[name]
    second = segmentation_loss(other, target, {name: 1}, WEIGHTS)[name]
    torch.testing.assert_close(first, second)
    second.backward()
    gradient = other.grad.abs().sum(dim=1)
    assert (gradient[target == IGNORE] == 0).all()
    assert (gradient[target != IGNORE] > 0).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_batch_that_is_ignored_gives_0_and_a_gradient_of_0(name: str, weights: Tensor | None) -> None:
    logits = torch.randn(2, 4, 5, 6, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((2, 5, 6), IGNORE), {name: 3.0}, weights)[name]
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_right(name: str) -> None:
    logits, target = batch()
    logits.requires_grad_()
    segmentation_loss(logits, target, {name: 1}, WEIGHTS)[name].backward()
    step = torch.zeros_like(logits)
    step[0, :, 2, 3] = torch.tensor([0.01, -0.02, 0.01, 0.005])
    step[1, :, 1] = 0.01 * torch.randn(4, 6)
    up, down = (segmentation_loss(logits + s * step, target, {name: 1}, WEIGHTS)[name].item() for s in (1, -1))
    assert (up - down) / 2 == pytest.approx(float((logits.grad * step).sum()), rel=0.01, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_answer_costs_nothing_and_has_finite_gradients(name: str) -> None:
    target = torch.randint(0, 4, (2, 5, 6))
    logits = (200 * F.one_hot(target, 4).permute(0, 3, 1, 2).float()).requires_grad_()
    loss = segmentation_loss(logits, target, {name: 1}, gamma=0.5)[name]
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_summed_in_float32(name: str) -> None:
    logits, target = batch()
    ours = segmentation_loss(logits.bfloat16(), target, {name: 1})[name]
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, segmentation_loss(logits.bfloat16().float(), target, {name: 1})[name])


def test_parts_are_weighted_and_keep_their_order() -> None:
    logits, target = batch()
    parts = segmentation_loss(logits, target, {"dice": 0.5, "focal": 20, "cross_entropy": 1}, WEIGHTS, gamma=1)
    assert list(parts) == ["dice", "focal", "cross_entropy"]
    torch.testing.assert_close(parts["dice"], 0.5 * dice(logits, target))
    torch.testing.assert_close(parts["focal"], 20 * focal(logits, target, 1, WEIGHTS))
    torch.testing.assert_close(parts["cross_entropy"], cross_entropy(logits, target, WEIGHTS))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "no loss is given; choose from cross_entropy, dice, focal"),
        ({"dise": 1.0}, r"unknown loss 'dise' \(did you mean 'dice'\?\)"),
        ({"dice": 0.0}, "the loss 'dice' has the weight 0.0; give a number above 0"),
        ({"dice": math.nan}, "has the weight nan"),
        ({"dice": math.inf}, "has the weight inf"),
    ],
)
def test_weights_that_can_not_be_meant(weights: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        segmentation_loss(*batch(), weights)


def test_class_weights_are_the_median_frequency_over_the_own() -> None:
    weights = median_frequency_weights([[80, 20, 0, 0], [50, 0, 50, 0], [90, 10, 0, 0]])
    frequencies = [220 / 300, 30 / 200, 50 / 100]
    assert weights.tolist() == pytest.approx([0.5 / frequency for frequency in frequencies] + [0])
    assert median_frequency_weights([[0, 0]]).tolist() == [0, 0]
