"""What a comparison is to be: methods, labels, budget and seeds."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from visionlora.errors import InputError
from visionlora.sections import AUTO, AnnotatedData, RunConfig
from visionlora.studies.methods import Variant

Shots = int | None
"""Training images of each class (of annotated images, in all); None for all there are."""
_BUDGET = re.compile(r"(\d[\d.]*) ?(steps?|s|sec|seconds|min|minutes|h|hours)")
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "min": 60.0, "minutes": 60.0, "h": 3600.0, "hours": 3600.0}
EVALUATIONS = 10
"""In a run, for the curve, where nothing else is asked for."""
APART, TOGETHER = "apart", "together"
"""How learning rates are searched."""
Value = TypeVar("Value")


@dataclass(frozen=True)
class Budget:
    """What every run gets: optimizer steps, or seconds of training, evaluations not counted."""

    steps: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.steps} steps" if self.steps else f"{self.seconds:g} s of training"

    def epochs(self, steps_per_epoch: int, step_seconds: float, where: str) -> int:
        """Whole epochs that fit in. InputError, which begins with ``where``, if that is none."""
        steps = self.steps if self.steps else int((self.seconds or 0.0) / step_seconds)
        if steps < steps_per_epoch:
            needed = f"{steps_per_epoch} steps"
            needed += "" if self.steps else f" of {step_seconds:.2g} s, {steps_per_epoch * step_seconds:.2g} s in all"
            raise InputError(f"--budget {self}: {where} one epoch takes {needed}; give more, or a larger batch_size")
        return steps // steps_per_epoch


@dataclass(frozen=True)
class Cell:
    """One run of the comparison."""

    variant: Variant
    shots: Shots
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.variant.slug}_{shots_word(self.shots)}_seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A whole comparison.

    Attributes:
        config: what all runs have in common; ``out`` is the study's folder.
        variants: methods at their ranks.
        shots: numbers of labels, ascending.
        budget: of each run.
        seeds: runs of each method with each number of labels.
        evaluations: about so many in each run; the score is the last one's, the others are for the curve.
        jobs: runs that are trained side by side.
        rates_apart: each search goes on to where the learning rates are multiplied by different factors.
    """

    config: RunConfig
    variants: tuple[Variant, ...]
    shots: tuple[Shots, ...]
    budget: Budget
    seeds: int
    evaluations: int = EVALUATIONS
    jobs: int = 1
    rates_apart: bool = True

    def __post_init__(self) -> None:
        train = self.config.train
        if train.batch_size == AUTO:
            raise InputError("train.batch_size=auto would be another number for each method; give one for all")
        if train.devices > 1:
            raise InputError(f"train.devices={train.devices}: a comparison trains in one process; leave it out")

    @property
    def first_seed(self) -> int:
        """Of the learning-rate searches too."""
        return self.config.train.seed

    def apart(self, variant: Variant) -> bool:
        """Whether its two learning rates are searched, and not one factor of both."""
        return self.rates_apart and not variant.one_rate

    @property
    def of_each_class(self) -> bool:
        """Whether numbers of labels are images of each class, and not of annotated images in all."""
        return not isinstance(self.config.data, AnnotatedData)

    def labels(self, shots: Shots) -> str:
        """A number of labels in a sentence."""
        if shots is None:
            return "all labels"
        return f"{shots} labels of each class" if self.of_each_class else f"{shots} labelled images"

    def cells(self) -> list[Cell]:
        """Every run, seed by seed, so that a study that is stopped early has all methods."""
        return [
            Cell(variant, shots, self.first_seed + number)
            for number in range(self.seeds)
            for shots in reversed(self.shots)
            for variant in self.variants
        ]


def shots_word(shots: Shots) -> str:
    """``20-shot``, or ``all``."""
    return "all" if shots is None else f"{shots}-shot"


def parse_rates(text: str) -> bool:
    """Whether rates are searched ``apart``, and not ``together``. InputError for anything else."""
    if text not in (APART, TOGETHER):
        raise InputError(f"--rates {text}: give {APART} or {TOGETHER}")
    return text == APART


def parse_budget(text: str) -> Budget:
    """``500steps``, ``90s``, ``10min`` or ``1h``. InputError for anything else."""
    match = _BUDGET.fullmatch(text.strip().lower())
    if match is None or match[1].count(".") > 1 or not float(match[1]):
        raise InputError(f"--budget {text}: give steps or training time of each run, such as 500steps or 10min")
    if match[2] in _SECONDS:
        return Budget(seconds=parse_seconds(text, "--budget"))
    if float(match[1]) % 1:
        raise InputError(f"--budget {text}: give a whole number of steps")
    return Budget(steps=int(float(match[1])))


def parse_seconds(text: str, option: str) -> float:
    """``20s`` or ``2min`` as seconds. InputError for anything else."""
    match = _BUDGET.fullmatch(text.strip().lower())
    if match is None or match[2] not in _SECONDS or match[1].count(".") > 1 or not float(match[1]):
        raise InputError(f"{option} {text}: give a time, such as 20s")
    return float(match[1]) * _SECONDS[match[2]]


def parse_shots(text: str) -> tuple[Shots, ...]:
    """``5,20,all``, put in order. InputError for anything else."""
    found = parse_list(text, "--shots", lambda word: None if word == "all" else _whole(word))
    return (*sorted(shots for shots in found if shots is not None), *([None] if None in found else []))


def parse_ranks(text: str) -> tuple[int, ...]:
    """``4,8,16``, put in order. InputError for anything else."""
    return tuple(sorted(parse_list(text, "--ranks", _whole)))


def parse_list(text: str, option: str, read: Callable[[str], Value]) -> list[Value]:
    """Values between commas, none of them twice."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise InputError(f"{option} is empty; leave it out, or give a list such as 4,8")
    try:
        values = [read(word) for word in words]
    except ValueError as error:
        raise InputError(f"{option} {text}: {error}") from error
    if len(set(values)) < len(values):
        raise InputError(f"{option} {text}: has a value twice")
    return values


def _whole(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(f"'{word}' is no whole number of at least 1")
    return int(word)
