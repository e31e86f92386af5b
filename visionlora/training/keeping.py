"""What a run does so that its base's classes are kept: refused before, and measured at its end."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from visionlora.adapters.header import read_header
from visionlora.errors import InputError, some
from visionlora.models.joined_outputs import begins_with
from visionlora.sections import RunConfig
from visionlora.tasks.about import Keeps
from visionlora.tasks.base import SetUp
from visionlora.tasks.evaluation import score, to_device
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Metrics
from visionlora.tasks.registry import task_of
from visionlora.tasks.together import DISTILLED, build_base, head_fingerprints, joint_classes, old_and_new
from visionlora.tasks.trained import load_trained, write_keeps
from visionlora.training.state import RunState

_COMPARED = 64
"""Images on which the old classes' outputs are compared with the base's, bit for bit."""


@dataclass(frozen=True)
class Kept:
    """What became of the base's classes.

    Attributes:
        old, new: how many classes there are.
        scores: of all classes together, on the validation images.
        groups: of ``old`` and ``new`` classes that these images show, the means of their scores.
        rule: by which the answers of both are one.
        compared: images on which the old classes' outputs were the base's, bit for bit.
        agreement: of a model that learnt the old classes from the base's answers, the share of these that it still
            gives on the validation images.
    """

    old: int
    new: int
    scores: dict[str, float]
    groups: dict[str, dict[str, float]]
    rule: dict[str, Any] = field(default_factory=dict)
    compared: int = 0
    agreement: float | None = None

    def __str__(self) -> str:
        if self.agreement is not None:
            kept = f"{self.agreement:.4f} of what the base says of its {self.old} classes"
            return f"{kept} is what one model with {self.new} more says, on the validation images"
        told = "".join(f"  {name} {value:.4f}" for name, value in self.scores.items())
        same = f"; outputs of old ones are the base's, bit for bit, on {self.compared} images" * bool(self.compared)
        rule = "".join(f"  {name} {value:.4g}" for name, value in self.rule.items())
        return (
            f"with the base's {self.old} classes beside the {self.new} new:{told}{f'; rule:{rule}' * bool(rule)}{same}"
        )


def check_keeping(config: RunConfig, setup: SetUp) -> None:
    """Raise InputError if ``train.keep_classes`` can't be had."""
    for name in ("keep_overlap", "merge_classes"):
        if getattr(config.train, name) not in (None, False) and not config.train.keep_classes:
            raise InputError(f"train.{name} is of no use without train.keep_classes")
    if not config.train.keep_classes:
        return
    if config.train.keep_classes == "distill":
        if DISTILLED not in setup.about:
            raise InputError(f"train.keep_classes=distill is not for {task_of(config.task).noun}s")
        return
    if config.train.method == "full":
        raise InputError(
            "train.keep_classes=true needs a frozen base, and train.method=full changes it; take lora or head, or "
            "train.keep_classes=distill"
        )
    task = task_of(config.task)
    base = build_base(task, setup.settings, config.train.seed)
    joint_classes(base.classes, [("data", setup.classes, task.rule(config, setup.classes))])


def keep(state: RunState, alone: Trained, on_batch: Callable[[int], None]) -> Kept:
    """Say in the run's file that its base answers beside it, by a rule that is fitted here, and score all classes.

    ``alone`` is what the file holds, merged.

    Raises:
        InputError: an old class's output is not the base's.
    """
    config, task, data = state.config, state.task, state.setup.val
    base = _base(state, alone)
    rule = task.fit_rule(base, alone, data, config, state.device)
    head = head_fingerprints(base.model.cpu(), read_header(alone.path).base)
    write_keeps(alone.path, Keeps(classes=base.classes, head=head, rule=rule))
    trained = load_trained(state.folder)
    everything = task.among(data, trained.classes)
    untouched = rule.overlap is None and not rule.merge
    compared = _refuse_other_outputs(state, trained, base) if untouched else 0
    metrics = score(
        trained,
        everything,
        config.train.batch_size,
        config.data.workers,
        state.device,
        lambda _what, _images: nullcontext(on_batch),
    )
    groups = by_group(trained, metrics.per_class(), everything.counts())
    told = rule.model_dump(exclude_defaults=True, exclude={"means"})
    return Kept(len(base.classes), len(trained.classes) - len(base.classes), metrics.scores(), groups, told, compared)


def compare_with_base(state: RunState, trained: Trained, metrics: Metrics) -> Kept:
    """Of a model that learnt its base's classes from the base's answers, how many of these it still gives."""
    config, data = state.config, state.setup.val
    base = _base(state, trained)
    agreement = state.task.agreement(base, trained, data, config, state.device)
    new = len(trained.classes) - len(base.classes)
    groups = by_group(trained, metrics.per_class(), data.counts())
    return Kept(len(base.classes), new, metrics.scores(), groups, agreement=agreement)


def _base(state: RunState, trained: Trained) -> Trained:
    """What a run's model was trained on, with the head that it came with."""
    base = build_base(state.task, state.setup.settings, state.train.seed)
    return replace(trained, built=base.built, classes=base.classes, about=base.about)


def by_group(
    trained: Trained, per_class: dict[str, dict[str, float]], counts: list[int]
) -> dict[str, dict[str, float]]:
    """Means of the scores of ``old`` and of ``new`` classes that the images show; empty where nobody kept count."""
    found: dict[str, dict[str, float]] = {}
    parts = old_and_new(trained)
    if parts is None:
        return found
    shown = {name for name, count in zip(trained.classes, counts, strict=True) if count}
    for group, names in zip(("old", "new"), parts, strict=True):
        of = [per_class[name] for name in names if name in shown and name in per_class]
        columns = list(dict.fromkeys(column for values in of for column in values))
        means = {
            column: [values[column] for values in of if column in values and values[column] == values[column]]
            for column in columns
        }
        found[group] = {column: sum(values) / len(values) for column, values in means.items() if values}
    return found


@torch.no_grad()
def _refuse_other_outputs(state: RunState, trained: Trained, base: Trained) -> int:
    """How many images were compared. A reason to refuse would be a fault of ours, or of the machine."""
    task, device = state.task, state.device
    images = 0
    models = [one.model.to(device) for one in (trained, base)]
    for batch in task.loader(base, state.setup.val, state.config.train.batch_size, state.config.data.workers):
        shown = to_device(batch["image"], device)
        found, expected = (model(shown) for model in models)
        if not begins_with(found, expected):
            files = some(task.files(state.setup.val), 2)
            raise InputError(f"{trained.path}: the old classes' outputs differ from the base's, on {files}")
        images += len(batch["image"])
        if images >= _COMPARED:
            break
    return images
