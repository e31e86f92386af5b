"""What a comparison measured, as plain data."""

from dataclasses import dataclass

from visionlora.studies.plan import Cell, Plan
from visionlora.studies.runs import Outcome
from visionlora.studies.search import Found, Rates
from visionlora.studies.trial import Trial


@dataclass(frozen=True)
class Ran:
    """A run of the comparison, and with what it was trained; ``rates`` are the learning rates themselves."""

    cell: Cell
    outcome: Outcome
    rates: Rates
    epochs: int
    steps: int
    images: int


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured.

    Attributes:
        plan: what was asked for.
        score: the name of the one that is compared.
        tested: images that it was measured on.
        held_out: images that learning rates were chosen on.
        trials: what a step of each method costs, by its label.
        rates: the learning rates that each search tried, likewise.
        runs: in the order of ``Plan.cells``.
    """

    plan: Plan
    score: str
    tested: int
    held_out: int
    trials: dict[str, Trial]
    rates: dict[str, Found]
    runs: list[Ran]
