"""What a task hands to a run, the same for every task."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from visionlora.errors import InputError, did_you_mean, some
from visionlora.sections import ModelSection

Section = TypeVar("Section", bound=ModelSection)


@dataclass(frozen=True)
class SetUp:
    """Everything about the task that a run needs.

    Attributes:
        model: plain.
        head: names of its modules that train fully.
        unused: names of its layers that no output depends on; adapters leave them out.
        task: what `training.loop.fit` asks for.
        settings: the config's section of the model, as plain data to build it again from.
        preprocessing: how images reach the model, as plain data for its file.
        description: one line about model and data.
        skipped: files that were left out because they can't be read.
        faulty: a line for each fault of the annotations that was passed over, as asked.
        keep_statistics: full fine-tuning too leaves BatchNorm's running statistics as they are.
    """

    model: nn.Module
    head: list[str]
    unused: list[str]
    task: Any
    settings: dict[str, Any]
    preprocessing: dict[str, Any]
    description: str
    skipped: list[Path]
    keep_statistics: bool = False
    faulty: list[str] = field(default_factory=list)


def without_weights(model: Section) -> Section:
    """The section of a model whose every tensor will be loaded from another file."""
    return model.model_copy(update={"checkpoint": None, "pretrained": False})


def refuse_unknown_monitor(monitor: str, known: Sequence[str]) -> None:
    """Raise InputError unless ``train.monitor`` is one of the scores."""
    if monitor not in known:
        nearest = did_you_mean(monitor, known)
        raise InputError(f"train.monitor is '{monitor}'; choose from {some(known, 16)}{nearest}")
