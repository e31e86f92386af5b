"""A power law is found where there is one, and its interval holds as often as it says."""

import numpy as np
import pytest

from visionlora.studies.forecast import forecast


def test_a_power_law_is_carried_on() -> None:
    points = [(n, 1 - 0.9 * n**-0.4) for n in (10, 20, 50)]
    for found in forecast(points, [100, 400], tested=10_000):
        assert found.score == pytest.approx(1 - 0.9 * found.images**-0.4, abs=1e-9)
        assert found.low == pytest.approx(found.score) == pytest.approx(found.high)


def test_the_interval_holds_four_times_of_five() -> None:
    generator = np.random.default_rng(0)

    def score(n: int) -> float:
        return float(1 - 0.8 * n**-0.35 * np.exp(generator.normal(0, 0.1)))

    held = 0
    for _ in range(500):
        points = [(n, score(n)) for n in (10, 20, 40, 80) for _ in range(2)]
        (found,) = forecast(points, [160], tested=10_000)
        assert found.low < found.score < found.high
        held += found.low <= score(160) <= found.high
    assert 0.75 < held / 500 < 0.85


def test_farther_is_less_certain_and_scores_stay_scores() -> None:
    points = [(5, 0.4), (5, 0.6), (10, 0.9), (20, 0.5), (20, 1.0)]
    near, far = forecast(points, [30, 3000], tested=20)
    assert far.high - far.low > near.high - near.low
    assert all(0 <= value <= 1 for found in (near, far) for value in (found.low, found.score, found.high))


@pytest.mark.parametrize("points", [[], [(5, 0.5)], [(5, 0.5), (10, 0.6), (10, 0.7), (5, 0.4)]])
def test_of_less_than_three_numbers_nothing_is_foretold(points: list[tuple[int, float]]) -> None:
    assert forecast(points, [20], tested=100) == []
