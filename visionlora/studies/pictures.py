"""A comparison as pictures: score against time, parameters and labels. Matplotlib figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from visionlora.studies.comparison import Comparison
from visionlora.studies.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (8.0, 5.0)
_MARKS = "osv^D<>pP*X"
"""So that curves of the same colour can be told from each other."""


def pictures(rows: Sequence[Row], found: Comparison) -> "dict[str, Figure]":
    """By name; the one against labels is there where there are several numbers of them."""
    most = [row for row in rows if row.shots == found.plan.shots[-1] and row.score is not None]
    figures = {"score_by_time": _by_time(most, found), "score_by_parameters": _by_parameters(most, found)}
    if len(found.plan.shots) > 1:
        figures["score_by_labels"] = _by_labels([row for row in rows if row.score is not None], found)
    return figures


def _by_time(rows: Sequence[Row], found: Comparison) -> "Figure":
    """The mean over the seeds at each evaluation, with the least and the most."""
    figure, axes = _new(found.score, "seconds of training", f"with {found.plan.labels(found.plan.shots[-1])}")
    for number, row in enumerate(rows):
        curves = [
            run.outcome.curve
            for run in found.runs
            if (run.cell.variant, run.cell.shots) == (row.variant, row.shots) and run.outcome.score is not None
        ]
        steps = np.array([step for step, _ in curves[0]])
        scores = np.array([[value for _, value in curve] for curve in curves])  # (seeds, evaluations)
        seconds = steps * row.step_seconds
        (line,) = axes.plot(seconds, scores.mean(axis=0), marker=_mark(number), markersize=4, label=row.variant.label)
        if len(curves) > 1:
            axes.fill_between(seconds, scores.min(axis=0), scores.max(axis=0), alpha=0.12, color=line.get_color())
    _finish(axes)
    return figure


def _by_parameters(rows: Sequence[Row], found: Comparison) -> "Figure":
    figure, axes = _new(found.score, "parameters that train", f"with {found.plan.labels(found.plan.shots[-1])}")
    for number, row in enumerate(rows):
        error = row.spread if row.seeds > 1 else None
        axes.errorbar(
            row.trainable, row.score or 0.0, yerr=error, fmt=_mark(number), capsize=3, label=row.variant.label
        )
    axes.set_xscale("log")
    _finish(axes)
    return figure


def _by_labels(rows: Sequence[Row], found: Comparison) -> "Figure":
    figure, axes = _new(found.score, "training images", "")
    for number, variant in enumerate(found.plan.variants):
        own = sorted((row for row in rows if row.variant == variant), key=lambda row: row.images)
        if own:
            axes.errorbar(
                [row.images for row in own],
                [row.score or 0.0 for row in own],
                yerr=[row.spread for row in own] if found.plan.seeds > 1 else None,
                marker=_mark(number),
                markersize=4,
                capsize=3,
                label=variant.label,
            )
    axes.set_xscale("log")
    counts = sorted({row.images for row in rows})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_xticks([], minor=True)
    _finish(axes)
    return figure


def _new(score: str, against: str, title: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(against)
    axes.set_ylabel(score)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    return figure, axes


def _finish(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _mark(number: int) -> str:
    return _MARKS[number % len(_MARKS)]
