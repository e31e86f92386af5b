"""What the parts of a study hand on to each other while it is at work."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from visionlora.sections import RunConfig
from visionlora.studies.methods import Variant
from visionlora.studies.plan import Plan
from visionlora.studies.runs import Outcome
from visionlora.studies.time_left import TimeLeft
from visionlora.studies.trial import Trial

Say = Callable[[str], None]


@dataclass(frozen=True)
class Study:
    """A study at work: what was asked, what is known of it, and whom to tell."""

    plan: Plan
    score: str
    configs: dict[Variant, RunConfig]
    trials: dict[Variant, Trial]
    left: TimeLeft
    console: Console
    say: Say
    stop: Callable[[], None]


def score_word(score: str, outcome: Outcome) -> str:
    """What a run came to, in a line that is told."""
    if outcome.score is not None:
        return f"{score} {outcome.score:.4f}"
    return f"diverged ({outcome.failed})" if outcome.failed else f"no {score}: nothing to measure it by"
