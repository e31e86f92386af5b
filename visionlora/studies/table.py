"""The runs of a comparison as rows: means over the seeds, and times to a score."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from visionlora.studies.comparison import Comparison, Ran
from visionlora.studies.methods import FROZEN, Variant
from visionlora.studies.plan import Shots, shots_word
from visionlora.studies.search import Rates

NEARLY = 0.95
"""Of the best mean score: who reaches that is nearly there."""


@dataclass(frozen=True)
class Row:
    """A method with a number of labels. What a run does not have is None.

    Attributes:
        shots, of_each_class: as in ``Plan``; ``images`` is how many those are in all.
        seeds: runs that have a score, of ``asked``.
        scores: of each seed that has one.
        score, spread: their mean, and standard deviation (0 of a single one).
        rates: as they were chosen.
        at_edge: they were chosen at the edge of what was tried.
        trainable, file_bytes: parameters that trained, and the size of their file.
        bytes_kept: from a forward for the backward.
        peak_bytes: the most memory that the process had.
        step_seconds: of training; the least of the runs' means, for whatever else the machine does only adds to it.
        to_frozen, to_nearly: mean seconds, in steps of so long, of training to the frozen backbone's mean score, and to
            95% of the best method's, with so many labels; None unless every seed gets there.
    """

    variant: Variant
    shots: Shots
    of_each_class: bool
    images: int
    seeds: int
    asked: int
    scores: dict[int, float]
    score: float | None
    spread: float
    rates: Rates
    at_edge: bool
    trainable: int
    file_bytes: int
    bytes_kept: int
    peak_bytes: int
    step_seconds: float
    to_frozen: float | None
    to_nearly: float | None

    @property
    def label(self) -> str:
        """Method and labels."""
        return f"{self.variant.label}, {shots_word(self.shots)}"


def rows_of(found: Comparison) -> list[Row]:
    """A row for each method with each number of labels, most labels first."""
    rows: list[Row] = []
    for shots in reversed(found.plan.shots):
        groups = {
            variant: [run for run in found.runs if (run.cell.variant, run.cell.shots) == (variant, shots)]
            for variant in found.plan.variants
        }
        means = {variant: _mean(runs) for variant, runs in groups.items()}
        frozen = next((mean for variant, mean in means.items() if variant.word == FROZEN), None)
        best = max((mean for mean in means.values() if mean is not None), default=None)
        nearly = None if best is None else NEARLY * best
        rows += [_row(found, variant, runs, frozen, nearly) for variant, runs in groups.items()]
    return rows


def _row(found: Comparison, variant: Variant, runs: Sequence[Ran], frozen: float | None, nearly: float | None) -> Row:
    scores = {run.cell.seed: run.outcome.score for run in runs if run.outcome.score is not None}
    ended = [run.outcome for run in runs if run.outcome.score is not None]
    step_seconds = min((outcome.step_seconds for outcome in ended), default=0.0)
    return Row(
        variant=variant,
        shots=runs[0].cell.shots,
        of_each_class=found.plan.of_each_class,
        images=runs[0].images,
        seeds=len(scores),
        asked=len(runs),
        scores=scores,
        score=_mean(runs),
        spread=statistics.stdev(scores.values()) if len(scores) > 1 else 0.0,
        rates=runs[0].rates,
        at_edge=found.rates[variant.label].at_edge,
        # Not the trial's, where a run spreads its ranks.
        trainable=max((outcome.trainable for outcome in ended), default=found.trials[variant.label].trainable),
        file_bytes=max((outcome.file_bytes for outcome in ended), default=0),
        bytes_kept=found.trials[variant.label].bytes_kept,
        peak_bytes=max((outcome.peak_bytes for outcome in ended), default=0),
        step_seconds=step_seconds,
        to_frozen=_seconds_to(runs, frozen, step_seconds),
        to_nearly=_seconds_to(runs, nearly, step_seconds),
    )


def _mean(runs: Sequence[Ran]) -> float | None:
    scores = [run.outcome.score for run in runs if run.outcome.score is not None]
    return statistics.fmean(scores) if scores else None


def _seconds_to(runs: Sequence[Ran], score: float | None, step_seconds: float) -> float | None:
    """Mean seconds of training until an evaluation shows so much."""
    if score is None:
        return None
    needed: list[int] = []
    for run in runs:
        step = next((step for step, value in run.outcome.curve if value >= score), None)
        if step is None:
            return None
        needed.append(step)
    return step_seconds * statistics.fmean(needed)
