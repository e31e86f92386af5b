"""Learning rates for each method, on a grid that widens where the best is at its edge."""

from collections.abc import Callable
from typing import NamedTuple

STEP = 10**0.5
"""From one rate of the grid to the next."""
FARTHEST = 5
"""Steps from the centre, up or down, where the search ends: a factor of 316."""

Quality = tuple[float, float]
"""Score and minus the loss, which decides between equal scores."""
Place = tuple[int, int]
"""Steps from the centre, of the adapter's or backbone's rate and of the head's."""
START: tuple[Place, ...] = ((0, 0), (-1, -1), (1, 1))
_TOGETHER: tuple[Place, ...] = ((-1, -1), (1, 1))
_APART: tuple[Place, ...] = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Rates(NamedTuple):
    """The learning rate of the adapter or backbone, and the head's; or what the config's are multiplied by."""

    lr: float
    head_lr: float


class Found(NamedTuple):
    """What a search came to.

    Attributes:
        best: what did best.
        tried: quality of every run; None where it diverged.
        at_edge: the best was still at the edge when the search ended.
    """

    best: Rates
    tried: dict[Rates, Quality | None]
    at_edge: bool


def fewest_runs(apart: bool) -> int:
    """Of a search."""
    return 6 if apart else 3


def search(quality_of: Callable[[Rates], Quality | None], apart: bool) -> Found:
    """The best of a grid around the config's rates: of three where both rates are multiplied alike, then of what is
    next to the best, until it has no neighbour that was not tried.

    Args:
        quality_of: of a run with its learning rates times these factors; None if it diverged.
        apart: go on to where the two are multiplied by different factors.
    """
    tried: dict[Place, Quality | None] = {place: quality_of(_factors(place)) for place in START}
    for steps in (_TOGETHER, _APART) if apart else (_TOGETHER,):
        while new := [place for place in _beside(_best(tried), steps) if place not in tried]:
            tried[new[0]] = quality_of(_factors(new[0]))
    best = _best(tried)
    at_edge = any(abs(step) == FARTHEST for step in best)
    return Found(_factors(best), {_factors(place): tried[place] for place in sorted(tried)}, at_edge)


def _beside(place: Place, steps: tuple[Place, ...]) -> list[Place]:
    beside = [(place[0] + lr, place[1] + head) for lr, head in steps]
    return [(lr, head) for lr, head in beside if max(abs(lr), abs(head)) <= FARTHEST]


def _best(tried: dict[Place, Quality | None]) -> Place:
    """The place of the best; where all diverged, the lowest, and of equals the one nearest to the centre."""
    worst = (float("-inf"), float("-inf"))
    if all(quality is None for quality in tried.values()):
        return min(tried)
    return max(tried, key=lambda place: (tried[place] or worst, -abs(place[0]) - abs(place[1])))


def _factors(place: Place) -> Rates:
    return Rates(STEP ** place[0], STEP ** place[1])
