"""A learning rate that is found whatever lies where it lies."""

import math

import pytest

from visionlora.studies.search import FARTHEST, STEP, Found, Quality, search


def searched(best: float) -> tuple[Found, list[float]]:
    """The search where quality falls with the distance from ``best``, and the factors in the order asked for."""
    asked: list[float] = []

    def quality(factor: float) -> Quality:
        asked.append(factor)
        return -abs(math.log(factor / best)), 0.0

    return search(quality), asked


@pytest.mark.parametrize(("place", "runs"), [(0, 3), (1, 4), (-1, 4), (3, 6), (-4, 7)])
def test_the_grid_widens_until_the_best_is_inside(place: int, runs: int) -> None:
    found, asked = searched(STEP**place)
    assert found.factor == pytest.approx(STEP**place)
    assert (len(asked), len(found.tried), found.at_edge) == (runs, runs, False)
    assert min(found.tried) < found.factor < max(found.tried)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_best_that_is_never_inside_is_told(sign: int) -> None:
    found, asked = searched(STEP ** (sign * 99))
    assert found.factor == pytest.approx(STEP ** (sign * FARTHEST))
    assert found.at_edge and len(asked) == len(set(asked)) == FARTHEST + 2


def test_of_equal_scores_the_lower_loss_decides_and_then_the_centre() -> None:
    losses = {0: 0.5, 1: 0.4, -1: 0.9, 2: 0.45}
    found = search(lambda factor: (1.0, -losses[round(math.log(factor, STEP))]))
    assert found.factor == pytest.approx(STEP)
    assert search(lambda factor: (1.0, 0.0)).factor == 1.0


def test_rates_that_diverge_are_passed_over_and_lower_ones_are_tried() -> None:
    found = search(lambda factor: None if factor > 0.05 else (factor, 0.0))
    assert found.factor == pytest.approx(STEP**-3)
    assert found.tried[1.0] is None
    everything = search(lambda factor: None)
    assert everything.at_edge and everything.factor == min(everything.tried)
