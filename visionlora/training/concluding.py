"""The end of a run: its best epoch's file loaded as anyone would, and the report."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from visionlora.adapters.fingerprint import digest
from visionlora.adapters.loading import restore_adapter
from visionlora.errors import InputError
from visionlora.files import write_json
from visionlora.stopping import Interrupted
from visionlora.tasks.evaluation import evaluation_copy, score
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Metrics, Scores
from visionlora.tasks.trained import ADAPTER, load_trained
from visionlora.training.checkpoint import changing
from visionlora.training.folder import REPORT
from visionlora.training.keeping import Kept, compare_with_base, keep
from visionlora.training.loop import autocast_context
from visionlora.training.quarantine import reasons
from visionlora.training.state import RunState, as_trained

_ROUNDING = 0.01
"""By so much, or one image, a score of the same model on the same images may differ."""


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        folder: of the run.
        scores: of the best epoch's model on the validation images.
        best_epoch: from 1.
        trainable: parameters that trained.
        saved_bytes: size of the file that holds them.
        seconds: spent, evaluation included, over all starts.
        per_class: scores of each class.
        details: what else the task reports: a confusion matrix, or score thresholds.
        skipped: unreadable images that were left out.
        faulty: faults of the annotations that were mended or left out, as asked.
        skipped_steps: those that were left out because loss or gradient was not finite.
        unreadable: a line for each training image that could be read when the run began, and later could not.
        spent: seconds since the last start by what they went into: see ``Stopwatch``.
        retained: the share of the base's score on ``train.retain`` that the best epoch keeps.
        kept: what became of the base's classes, where they are kept.
    """

    folder: Path
    scores: dict[str, float]
    best_epoch: int
    trainable: int
    saved_bytes: int
    seconds: float
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    faulty: list[str] = field(default_factory=list)
    skipped_steps: int = 0
    unreadable: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    retained: float | None = None
    kept: Kept | None = None


def conclude(state: RunState, stop: Callable[[], int]) -> Result:
    """Load the best epoch's file as anyone would, evaluate it unless it is what was evaluated, and write the report."""

    def on_batch(_images: int) -> None:
        if number := stop():
            raise Interrupted("in the last evaluation", number)

    started = time.perf_counter()
    config, processes = state.config, state.processes
    trained = _best(state)
    if state.best is not None and state.best.digest == digest(trained.model):
        metrics = state.best.metrics  # the file gives, to the bit, the model that was evaluated
        trained.model.to(state.device)
    else:
        metrics = score(
            trained,
            state.setup.val,
            config.train.batch_size,
            config.data.workers,
            state.device,
            lambda _what, _images: nullcontext(on_batch),
            autocast_context(config.train, state.device),
            (processes.rank, processes.size),
            state.in_step,
        )
        processes.add_up(metrics)
    state.watch.lap("evaluation")
    return processes.from_main(lambda: _report(state, trained, metrics, started, on_batch))


def _best(state: RunState) -> Trained:
    """The best epoch's model from its file, as anyone would load it, or put into a model whose base is sharded."""
    processes = state.processes
    if state.sharded is not None:
        about = processes.from_main(lambda: restore_adapter(state.model, state.folder / ADAPTER).extra)
        processes.as_in_main(changing(state.model))
        trained = as_trained(state.config, state.setup, state.model.eval())
        return replace(trained, path=state.folder / ADAPTER, about=about)
    if processes.main:
        trained = load_trained(state.folder, alone=True)
    else:
        trained = as_trained(state.config, state.setup, evaluation_copy(state.model))
    if processes.several:
        processes.as_in_main(trained.model.to(state.device).state_dict())
    return trained


def _report(
    state: RunState, trained: Trained, metrics: Metrics, started: float, on_batch: Callable[[int], None]
) -> Result:
    """What the run came to, also as its report's file."""
    progress = state.progress
    _refuse_other_scores(trained, metrics.scores(), metrics.names, len(state.setup.val))
    kept = None
    if state.train.keep_classes == "distill":
        kept = compare_with_base(state, trained, metrics)
    elif state.train.keep_classes:
        kept = keep(state, trained, on_batch)
    result = Result(
        folder=state.folder,
        scores=metrics.scores(),
        best_epoch=progress.best_epoch + 1,
        retained=progress.retained,
        trainable=trainable(state.model),
        saved_bytes=trained.path.stat().st_size,
        seconds=progress.seconds + time.perf_counter() - started,
        per_class=metrics.per_class(),
        details=metrics.details(),
        skipped=[str(path) for path in state.setup.skipped],
        faulty=state.setup.faulty,
        skipped_steps=progress.skipped,
        unreadable=reasons(progress.unreadable),
        spent=dict(state.watch.seconds),
        kept=kept,
    )
    plain = asdict(result)
    details = plain.pop("details")
    write_json(state.folder / REPORT, {**plain, **details, "folder": str(state.folder)})
    return result


def _refuse_other_scores(trained: Trained, found: Scores, names: Sequence[str], images: int) -> None:
    """Raise InputError unless a file's model scores as it did when it was written: then the data, the file's base or
    the program have changed since. Rounding, as of another device, may move an image from right to wrong.
    """
    before = trained.about.get("scores", {})
    for name in names:
        if name in before and name in found:
            allowed = max(_ROUNDING, 1.5 / images) * max(1.0, abs(before[name]))
            if not abs(found[name] - before[name]) <= allowed:
                raise InputError(
                    f"{trained.path}: its model has {name} {found[name]:.4f} on the validation images, and had "
                    f"{before[name]:.4f} when it was written; bring the images and labels of then back, or train again"
                )


def trainable(model: nn.Module) -> int:
    """Parameters that train."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
