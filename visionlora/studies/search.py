"""A learning rate for each method, on a grid that widens where the best is at its edge."""

from collections.abc import Callable
from dataclasses import dataclass

STEP = 10**0.5
"""From one rate of the grid to the next."""
START = (0, -1, 1)
FARTHEST = 5
"""Steps from the centre, up or down, where the search ends: a factor of 316."""

Quality = tuple[float, float]
"""Score and minus the loss, which decides between equal scores."""


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        factor: of the learning rates that the config has.
        tried: factor -> quality of every run; None where it diverged.
        at_edge: the best was still at the edge when the search ended.
    """

    factor: float
    tried: dict[float, Quality | None]
    at_edge: bool


def search(quality_of: Callable[[float], Quality | None]) -> Found:
    """The best factor of a grid around 1: three at first, and one more beyond the edge while the best is at it.

    Args:
        quality_of: of a run with its learning rates times this factor; None if it diverged.
    """
    tried: dict[int, Quality | None] = {}
    for place in START:
        tried[place] = quality_of(STEP**place)
    while True:
        best = _best(tried)
        beyond = best - 1 if best == min(tried) else best + 1 if best == max(tried) else None
        if beyond is None or abs(beyond) > FARTHEST:
            break
        tried[beyond] = quality_of(STEP**beyond)
    return Found(STEP**best, {STEP**place: tried[place] for place in sorted(tried)}, beyond is not None)


def _best(tried: dict[int, Quality | None]) -> int:
    """The place of the best; where all diverged, the lowest, and of equals the one nearest to the centre."""
    worst = (float("-inf"), float("-inf"))
    if all(quality is None for quality in tried.values()):
        return min(tried)
    return max(tried, key=lambda place: (tried[place] or worst, -abs(place)))
