"""What to choose, in two sentences, and what speaks against trusting them."""

import math
import statistics
from collections.abc import Sequence

from visionlora.studies.comparison import Comparison
from visionlora.studies.methods import PEFT
from visionlora.studies.table import Row

POINT = 0.01


def choose(rows: Sequence[Row], found: Comparison) -> Row | None:
    """Of the methods with the most labels that are not ``apart`` from the best the one whose file is smallest; None
    if every run diverged. PEFT's runs are there to be measured: they are chosen where there is nothing else.
    """
    scored = _candidates(rows, found)
    if not scored:
        return None
    best = max(scored, key=lambda row: row.score or 0.0)
    return min((row for row in scored if not apart(best, row, least_difference(found))), key=lambda row: row.file_bytes)


def _candidates(rows: Sequence[Row], found: Comparison) -> list[Row]:
    scored = [row for row in rows if row.shots == found.plan.shots[-1] and row.score is not None]
    return [row for row in scored if not row.variant.peft] or scored


def least_difference(found: Comparison) -> float:
    """One image of those that were tested; a point where a score is no count of images, as mAP and mIoU are."""
    return 1 / found.tested if found.plan.of_each_class else POINT


def apart(best: Row, row: Row, least: float) -> bool:
    """Whether a row is worse than the best by more than the ``least`` difference that counts, and by more than the
    standard error of the differences between runs of the same seed, which see the same images in the same order.
    """
    differences = [best.scores[seed] - row.scores[seed] for seed in best.scores.keys() & row.scores.keys()]
    if not differences:
        return True
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return statistics.fmean(differences) > max(error, least)


def advice(rows: Sequence[Row], found: Comparison) -> str:
    """Two sentences: what to choose, and why."""
    chosen = choose(rows, found)
    if chosen is None:
        return "No method can be recommended. Every run diverged; lower train.lr."
    scored = _candidates(rows, found)
    best = max(scored, key=lambda row: row.score or 0.0)
    labels = f"{chosen.images} training images" if chosen.shots is None else found.plan.labels(chosen.shots)
    first = f"Take {chosen.variant.label}: with {labels} it reaches {found.score} {_score(chosen)}"
    if chosen is best:
        near = [
            row.variant.label for row in scored if row is not best and not apart(best, row, least_difference(found))
        ]
        first += ", the best of all" + (
            f", and those that are as good ({'; '.join(near)}) have larger files" if near else ""
        )
    else:
        first += f", as good as the best ({best.variant.label}, {_score(best)}) as far as {_seeds(found)} can tell"
    first += f", and its file has {chosen.file_bytes / 1e6:.2f} MB."
    rest = [row for row in rows if row.shots == chosen.shots and row.score is not None and row is not chosen]
    others = [row for row in rest if row.variant.base in ("full", "frozen", "scratch", PEFT)] or rest
    compared = [f"{row.variant.label} reaches {_score(row)}{_against(row, chosen)}" for row in others]
    second = f"For comparison, {'; '.join(compared)}." if compared else "No other method has a score."
    return f"{first} {second}"


def _seeds(found: Comparison) -> str:
    return f"{found.plan.seeds} seeds" if found.plan.seeds > 1 else "one seed"


def _against(row: Row, chosen: Row) -> str:
    if not row.step_seconds or not chosen.step_seconds:
        return ""
    return f" at {row.step_seconds / chosen.step_seconds:.2f} times its step time and {row.file_bytes / 1e6:.2f} MB"


def _score(row: Row) -> str:
    return f"{row.score:.4f}" + (f" ± {row.spread:.4f}" if row.seeds > 1 else "")


def caveats(rows: Sequence[Row], found: Comparison) -> list[str]:
    """What speaks against taking the table for more than it is, a line each."""
    plan = found.plan
    single = f": a single one is {1 / found.tested:.4f} of an accuracy" if plan.of_each_class else ""
    told = [
        f"Scores are of {found.tested} images{single}. They are the last epoch's; no epoch and no learning rate was "
        "chosen by them.",
        f"Every run had {plan.budget}, in whole epochs. Longer ones may put the methods into another order.",
        f"Learning rates were chosen once for each method at its rank, with seed {plan.first_seed} and "
        f"{plan.labels(plan.shots[-1])}, on {found.held_out} images held out of the training images; runs with fewer "
        "labels profit from these too."
        + ("" if plan.rates_apart else " The head's rate and the adapter's or backbone's kept their ratio."),
        "Times and memory are of this machine and process, with whatever else it did meanwhile: compare them with each "
        "other, not with other tables.",
    ]
    if plan.jobs > 1:
        told.append(f"{plan.jobs} runs were trained side by side: alone, each would have been quicker.")
    if plan.seeds == 1:
        told.append("There is one seed: which of two methods is better by chance can't be told.")
    elif plan.seeds < 5:
        told.append(f"{plan.seeds} seeds: the spread itself is uncertain.")
    if edge := list(dict.fromkeys(row.variant.label for row in rows if row.at_edge)):
        told.append(f"At the edge of the rates that were tried, so perhaps not at its best: {'; '.join(edge)}.")
    told += [f"{label}: {trial.note}." for label, trial in found.trials.items() if trial.note]
    if failed := [f"{row.label} ({row.asked - row.seeds} of {row.asked})" for row in rows if row.seeds < row.asked]:
        told.append(f"Runs that diverged, and are in no mean: {'; '.join(failed)}.")
    return told
