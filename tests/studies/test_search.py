"""Learning rates that are found whatever lies where they lie."""

import math

import pytest

from visionlora.studies.search import FARTHEST, STEP, Found, Quality, Rates, fewest_runs, search


def searched(lr: float, head_lr: float, apart: bool = True) -> tuple[Found, list[Rates]]:
    """The search where quality falls with the distance from these, and the factors in the order asked for."""
    asked: list[Rates] = []

    def quality(factors: Rates) -> Quality:
        asked.append(factors)
        return -abs(math.log(factors.lr / lr)) - abs(math.log(factors.head_lr / head_lr)), 0.0

    return search(quality, apart), asked


@pytest.mark.parametrize(("place", "runs"), [(0, 3), (1, 4), (-1, 4), (3, 6), (-4, 7)])
def test_the_grid_widens_until_the_best_is_inside(place: int, runs: int) -> None:
    found, asked = searched(STEP**place, STEP**place, apart=False)
    assert found.best == pytest.approx((STEP**place, STEP**place))
    assert (len(asked), len(found.tried), found.at_edge) == (runs, runs, False)
    assert runs >= fewest_runs(apart=False)
    assert min(found.tried) < found.best < max(found.tried)
    assert all(factors.lr == factors.head_lr for factors in asked)


@pytest.mark.parametrize("lr", range(-3, 4))
@pytest.mark.parametrize("head", range(-3, 4))
def test_rates_apart_are_found_wherever_they_are(lr: int, head: int) -> None:
    found, asked = searched(STEP**lr, STEP**head)
    assert found.best == pytest.approx((STEP**lr, STEP**head)) and not found.at_edge
    assert fewest_runs(apart=True) <= len(asked) == len(set(asked)) <= 20
    places = {(round(math.log(f.lr, STEP)), round(math.log(f.head_lr, STEP))) for f in asked}
    assert {(lr - 1, head), (lr + 1, head), (lr, head - 1), (lr, head + 1)} <= places


def test_a_backbone_that_stands_less_than_its_new_head_needs() -> None:
    """A valley across the diagonal: both alike come to a compromise, and that is left."""
    together, _ = searched(STEP**-3, STEP, apart=False)
    assert together.best.lr == together.best.head_lr
    found, asked = searched(STEP**-3, STEP)
    assert found.best == pytest.approx((STEP**-3, STEP))
    assert len(asked) <= 12


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("apart", [False, True])
def test_a_best_that_is_never_inside_is_told(sign: int, apart: bool) -> None:
    found, asked = searched(STEP ** (sign * 99), STEP ** (sign * 99), apart)
    assert found.best == pytest.approx((STEP ** (sign * FARTHEST),) * 2)
    assert found.at_edge and len(asked) == len(set(asked)) == FARTHEST + (4 if apart else 2)


def test_of_equal_scores_the_lower_loss_decides_and_then_the_centre() -> None:
    losses = {0: 0.5, 1: 0.4, -1: 0.9, 2: 0.45}
    found = search(lambda factors: (1.0, -losses[round(math.log(factors.lr, STEP))]), False)
    assert found.best.lr == pytest.approx(STEP)
    assert search(lambda factors: (1.0, 0.0), True).best == (1.0, 1.0)


def test_rates_that_diverge_are_passed_over_and_lower_ones_are_tried() -> None:
    found = search(lambda factors: None if factors.lr > 0.05 else (factors.lr, 0.0), False)
    assert found.best.lr == pytest.approx(STEP**-3)
    assert found.tried[Rates(1.0, 1.0)] is None
    everything = search(lambda factors: None, False)
    assert everything.at_edge and everything.best == min(everything.tried)
