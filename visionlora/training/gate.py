"""An epoch that loses too much of what the base knew is not taken as the best."""

from dataclasses import dataclass
from typing import Any

import torch

from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.tasks.evaluation import score
from visionlora.tasks.models import Known
from visionlora.tasks.registry import task_of
from visionlora.training.checkpoint import Progress
from visionlora.training.resuming import part_fingerprint


@dataclass(frozen=True)
class Gate:
    """What must be retained, as ``train.retain`` says.

    Attributes:
        known: images, and the base with its own head.
        base: the score of the base itself.
        at_least: the share of it that an epoch must keep.
    """

    known: Known
    base: float
    at_least: float

    def share(self, score: float) -> float:
        """Of the base's score; 1 where the base has none to lose."""
        return score / self.base if self.base else 1.0

    def passes(self, share: float | None) -> bool:
        """Whether an epoch that keeps so much may be the best."""
        return share is not None and share >= self.at_least

    def fingerprint(self, config: RunConfig) -> dict[str, Any]:
        """What the images are known by when a run goes on; the base's own answers may differ in their last bits."""
        found = part_fingerprint(task_of(config.task), self.known.data)
        return found if self.known.labelled else {**found, "labels": ""}

    def __str__(self) -> str:
        what = f"{self.known.measure} by labels" if self.known.labelled else "agreement with itself"
        return (
            f"an epoch is taken as best only if it keeps {self.at_least:g} of what the base knew of "
            f"{len(self.known.data)} images ({what} {self.base:.4f})"
        )


def gate_of(config: RunConfig, device: torch.device) -> Gate | None:
    """What the config asks for, with the base scored; None if it asks for nothing.

    Raises:
        InputError: the images can't be read, the base has no head of its own for them, or no epoch is chosen at all.
    """
    train = config.train
    if train.retain is None:
        return None
    if train.keep == "last":
        raise InputError("train.retain chooses an epoch, and train.keep=last takes the last one; leave one of them out")
    known: Known = task_of(config.task).known(config, train.retain, device)
    metrics = score(known.base, known.data, train.batch_size, config.data.workers, device)
    return Gate(known, metrics.scores()[known.measure], train.retain_at_least)


def is_better(value: float | None, share: float | None, progress: Progress, gate: Gate | None) -> bool:
    """Whether an evaluation is to be kept in the place of the best so far.

    Of those that keep enough it is the one with the higher score; while none does, the one that retains more.
    """
    if gate is not None and progress.retained is not None:
        now, before = gate.passes(share), gate.passes(progress.retained)
        if now != before:
            return now
        if not now:
            return (share or 0.0) > (progress.retained or 0.0)
    return progress.best is None or (value is not None and value > progress.best)
