"""What more labels would bring: a power law through the scores with fewer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from visionlora.studies.comparison import Comparison, Ran
from visionlora.studies.methods import Variant

FACTORS = (1.5, 2.0, 4.0)
LEAST = 3
"""Different numbers of labels, below which nothing is foretold."""
_T90 = (3.078, 1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372)
"""Student's t that is exceeded with probability 0.1, for 1 to 10 degrees of freedom."""


@dataclass(frozen=True)
class Forecast:
    """The score to be expected of one run with so many training images, and the interval of 80%."""

    images: int
    score: float
    low: float
    high: float


def forecast(points: Sequence[tuple[int, float]], images: Sequence[int], tested: int) -> list[Forecast]:
    """Fit ``1 - score = a * images ** -b`` to runs (Hestness et al. 2017, arXiv:1712.00409) and carry it on.

    A straight line through the logarithms, by least squares, and its prediction interval, which knows of the scatter
    between runs and of how uncertain the line is, but not of a curve that bends: with few images errors fall more
    slowly than a power law has it, and in the end they stop at what labels and images allow.

    Args:
        points: (training images, score) of each run; scores lie in 0 to 1.
        images: numbers to foretell the score for.
        tested: images that scores were measured on; an error of none of them counts as half of one.

    Returns:
        in the order of ``images``; empty with fewer than three different numbers.
    """
    if len({n for n, _ in points}) < LEAST:
        return []
    x = np.log([n for n, _ in points])
    y = np.log([max(1 - score, 0.5 / tested) for _, score in points])
    center, spread = x.mean(), ((x - x.mean()) ** 2).sum()
    slope = ((x - center) * (y - y.mean())).sum() / spread
    residual = y - y.mean() - slope * (x - center)
    freedom = len(x) - 2
    noise = math.sqrt((residual**2).sum() / freedom)
    t = _T90[freedom - 1] if freedom <= len(_T90) else NormalDist().inv_cdf(0.9)
    found = []
    for n in images:
        far = math.log(n) - center
        middle = y.mean() + slope * far
        width = t * noise * math.sqrt(1 + 1 / len(x) + far**2 / spread)
        low, score, high = (1 - min(1.0, math.exp(middle + sign * width)) for sign in (1, 0, -1))
        found.append(Forecast(n, float(score), float(low), float(high)))
    return found


def forecasts(found: Comparison, variant: Variant) -> tuple[list[Forecast], dict[str, Forecast]]:
    """Of a method with 1.5, 2 and 4 times the most images that it had; and each class with 2 times as many.

    A class's score is its F1, AP or IoU, and is foretold by all images, as if its share of them stayed.
    """
    runs = [run for run in found.runs if run.cell.variant == variant and run.outcome.score is not None]
    most = max((run.images for run in runs), default=0)
    whole = forecast(
        [(run.images, run.outcome.score or 0.0) for run in runs], [round(f * most) for f in FACTORS], found.tested
    )
    classes = list(dict.fromkeys(name for run in runs for name in run.outcome.per_class))
    by_class = {name: forecast(_of_class(runs, name), [2 * most], found.tested) for name in classes}
    return whole, {name: own[0] for name, own in by_class.items() if own}


def _of_class(runs: Sequence[Ran], name: str) -> list[tuple[int, float]]:
    return [(run.images, run.outcome.per_class[name]) for run in runs if name in run.outcome.per_class]
