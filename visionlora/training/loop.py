"""The training loop, for every task."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import nn

from visionlora.adapters.fingerprint import digest
from visionlora.errors import InputError, some
from visionlora.sections import TrainSection
from visionlora.stopping import Interrupted
from visionlora.tasks.evaluation import score
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Metrics, Training
from visionlora.training.checkpoint import save_checkpoint
from visionlora.training.folder import CHECKPOINTS
from visionlora.training.gate import is_better
from visionlora.training.guard import GuardedStep, Skips, Step
from visionlora.training.layer_stats import layer_statistics
from visionlora.training.micro_batches import MicroBatches
from visionlora.training.monitor import Monitor
from visionlora.training.optimizer import set_learning_rates
from visionlora.training.quarantine import Quarantine
from visionlora.training.random_states import State, random_state
from visionlora.training.state import Evaluated, RunState


class DivergedError(InputError):
    """Loss, gradient or weights are no longer finite: another learning rate may do."""


def steps_per_epoch(training: Training, train: TrainSection) -> int:
    """Optimizer steps in an epoch."""
    return -(-len(training.train_batches(0)) // train.accumulate)


def fit(state: RunState, monitor: Monitor, stop: Callable[[], int]) -> None:
    """Train from where the run stands to the end, evaluating and writing checkpoints on the way.

    Args:
        state: of the run; its progress changes in place.
        monitor: takes what is logged.
        stop: the number of the signal by which the run is asked to stop, or 0; see ``stop_requests``. It is asked after
            each step, and in an evaluation after each batch.

    Raises:
        InputError: too many steps in a row were left out because loss or gradient was not finite (a checkpoint holds
            the weights from before them), or too many images can't be read any more, or one to validate on.
        Interrupted: the run was asked to stop.
    """
    model, training, train, progress = state.model, state.setup.training, state.train, state.progress
    optimizer, scaler, device, processes = state.optimizer, state.scaler, state.device, state.processes
    autocast = autocast_context(train, device)
    total, warmup = (
        steps_per_epoch(training, train) * train.epochs,
        train.warmup_epochs * steps_per_epoch(training, train),
    )
    # Of the finite losses: what a skipped step's was is no part of the mean.
    losses = torch.tensor([progress.loss_sum, progress.loss_count], dtype=torch.float64, device=device)

    def tell(step: Step, what: str) -> None:
        progress.skipped += 1
        monitor.skipped(step.number, step.epoch, what, state.files(step.batches))

    skips = Skips(train.max_skipped_steps, scaler, tell, progress.skipped_in_row)
    clock, watch = time.perf_counter(), state.watch
    watch.restart()

    def log(rates: dict[str, float]) -> None:
        loss_sum, count = losses.tolist()
        mean = loss_sum / count if count else None
        parts = {name: float(part) for name, part in training.loss_parts.items()}
        monitor.train_step(progress.step, progress.epoch, mean, parts, rates, layer_statistics(model))
        losses.zero_()

    def checkpoint() -> None:
        random_states = processes.gather(random_state())
        if processes.main:
            write_checkpoint(random_states)
        processes.wait()  # who ends before it is written ends the others

    def write_checkpoint(random_states: list[State]) -> None:
        nonlocal clock
        now = time.perf_counter()
        progress.seconds, clock = progress.seconds + now - clock, now
        progress.loss_sum, count = losses.tolist()
        progress.loss_count, progress.metrics_bytes = int(count), monitor.metrics_bytes
        progress.events = monitor.event_sizes()
        progress.metrics_sha256, progress.skipped_in_row = monitor.metrics_sha256, skips.in_row
        folder = state.folder / CHECKPOINTS
        with state.average.aside():  # in an evaluation it may be shown
            save_checkpoint(
                folder, progress, model, optimizer, scaler, state.base, state.data, random_states, state.average
            )

    def stop_at(last: Step | None) -> None:
        if last:
            skips.in_row = 0  # who resumes goes on behind them
            checkpoint()
            raise DivergedError(_not_finite(last.number, state.files(last.batches), train))

    def checkpoint_if(due: bool, where: str) -> None:
        number = stop()
        if due or number:
            stop_at(skips.settle())
            checkpoint()
        if number:
            raise Interrupted(where, number)

    def on_batch(_images: int) -> None:
        # The epoch's steps are done and its evaluation isn't: to go on means to evaluate from the start.
        checkpoint_if(False, f"in the evaluation after step {progress.step}")

    while progress.epoch < train.epochs and not progress.finished:
        model.train()
        guard = GuardedStep(model, optimizer, scaler, train.clip)
        passes = MicroBatches(state, autocast, guard.undo, monitor.say)
        keys = training.train_batches(progress.epoch)
        quarantine = Quarantine(state, monitor, keys)
        readable = quarantine.without(keys)
        for batch in training.train_loader(processes.shares(readable[progress.batch :])):
            watch.lap("data")
            first = progress.batch % train.accumulate == 0
            last = (progress.batch + 1) % train.accumulate == 0 or progress.batch + 1 == len(keys)
            if first:
                group = min(train.accumulate, len(keys) - progress.batch)
                rates = set_learning_rates(optimizer, progress.step, warmup, total)
                begun = progress.batch
                guard.begin()
                passes.begin(group)
            quarantine.note(batch)
            if processes.several or len(batch["image"]) >= min(len(keys[progress.batch]), passes.least):
                passes.add(batch, len(readable[progress.batch]))
            monitor.count_images(len(readable[progress.batch]))
            progress.batch, progress.micro_batch = progress.batch + 1, passes.size
            if not last:
                continue
            losses += passes.losses
            processes.sum_gradients(guard.parameters)
            progress.step += 1
            if passes.any:
                left_out = guard.step(passes.loss)
                state.average.update(progress.step)
                skips.add(Step(progress.step, progress.epoch, keys[begun : progress.batch]), left_out, passes.loss)
            monitor.advance(progress.epoch, train.epochs, progress.step)
            logs = progress.step % train.log_every == 0
            too_many = skips.settle() if logs or device.type == "cpu" else None
            watch.lap("optimizer")
            if logs:
                log(rates)
                watch.lap("logging")
            stop_at(too_many)
            if missing := quarantine.too_many():
                stop_at(skips.settle())
                checkpoint()
                raise InputError(missing)
            optimizer.zero_grad(set_to_none=True)
            watch.lap("optimizer")
            checkpoint_if(progress.step % train.checkpoint_every == 0, f"at step {progress.step}")
            watch.lap("checkpoints")
        stop_at(skips.settle())
        if (progress.epoch + 1) % train.evaluate_every == 0 or progress.epoch + 1 == train.epochs:
            _evaluate(state, autocast, monitor, on_batch, checkpoint)
            watch.lap("evaluation")
            progress.finished = 0 < train.patience <= progress.stale
        progress.epoch, progress.batch = progress.epoch + 1, 0
        if progress.finished:
            monitor.say(f"stopped early: {state.monitor} has not risen for {progress.stale} evaluations")
        checkpoint_if(True, f"at step {progress.step}")
        watch.lap("checkpoints")
    progress.finished = True


def _evaluate(
    state: RunState,
    autocast: AbstractContextManager[Any],
    monitor: Monitor,
    on_batch: Callable[[int], None],
    checkpoint: Callable[[], None],
) -> None:
    train, progress, setup = state.train, state.progress, state.setup
    with ExitStack() as opened:
        try:
            trained = opened.enter_context(state.evaluated())
        except InputError as error:
            raise DivergedError(f"the weights are no longer finite ({error}): {_lower(train)}") from error
        try:
            metrics = score(
                trained,
                setup.val,
                train.batch_size,
                state.config.data.workers,
                state.device,
                lambda _what, _images: nullcontext(on_batch),
                autocast,
                (state.processes.rank, state.processes.size),
                state.in_step,
            )
            state.processes.add_up(metrics)
            share = _retained(state, trained.model, autocast, on_batch)

            def take_note() -> tuple[float | None, int, int, float | None]:
                _take_note(state, trained, metrics, share, monitor)
                return progress.best, progress.best_epoch, progress.stale, progress.retained

            noted = state.from_main(take_note)
            progress.best, progress.best_epoch, progress.stale, progress.retained = noted
        except InputError as error:
            # A score without this image would be of other images than the last epoch's.
            if not state.processes.several:  # of others nobody knows whether they are here
                checkpoint()
            raise InputError(
                f"{error}; an epoch is scored on all images to validate on: mend that, and --resume goes on"
            ) from error


def _retained(
    state: RunState, plain: nn.Module, autocast: AbstractContextManager[Any], on_batch: Callable[[int], None]
) -> float | None:
    """The share of the base's score that a plain model keeps; None where nobody asks."""
    gate = state.gate
    if gate is None:
        return None
    metrics = score(
        gate.known.with_backbone(plain),
        gate.known.data,
        state.train.batch_size,
        state.config.data.workers,
        state.device,
        lambda _what, _images: nullcontext(on_batch),
        autocast,
        (state.processes.rank, state.processes.size),
    )
    state.processes.add_up(metrics)
    return gate.share(metrics.scores()[gate.known.measure])


def _take_note(state: RunState, trained: Trained, metrics: Metrics, share: float | None, monitor: Monitor) -> None:
    """Log and show an evaluation, and keep the model if it is the best."""
    train, progress, setup = state.train, state.progress, state.setup
    figures = state.task.figures(trained, setup.val, metrics, state.device)
    retained = {} if share is None else {"retained": share}
    scores = {**metrics.scores(), **retained}
    monitor.evaluation(progress.step, progress.epoch, scores, metrics.per_class())
    for name, figure in figures.items():
        monitor.figure(name, figure, progress.step)
    # Where the validation images have nothing to measure it by, the score is missing, and the last epoch counts.
    value = scores.get(state.monitor)
    better = train.keep == "last" or is_better(value, share, progress, state.gate)
    if better:
        progress.best, progress.best_epoch, progress.stale, progress.retained = value, progress.epoch, 0, share
        state.save_best(metrics)
        if not state.processes.several and state.sharded is None:
            state.best = Evaluated(digest(trained.model), metrics)
    else:
        progress.stale += 1
    note = (
        f"  (no {state.monitor}: nothing to measure it by)" if value is None else f"  ({train.keep})" if better else ""
    )
    if state.gate is not None and not state.gate.passes(share):
        note = f"{note}  (retains less than {state.gate.at_least:g})"
    shown = "".join(f"  {name} {score:.4f}" for name, score in scores.items())
    monitor.say(f"epoch {progress.epoch + 1}/{train.epochs}{shown}{note}")
    monitor.restart_clock()


def autocast_context(train: TrainSection, device: torch.device) -> AbstractContextManager[Any]:
    """The forward passes' precision; can be entered repeatedly."""
    dtype = torch.float16 if train.autocast == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=train.autocast != "off")


def _not_finite(step: int, files: list[str], train: TrainSection) -> str:
    many, last = train.max_skipped_steps + 1, f"step {step}{f' ({some(files, 4)})' if files else ''}"
    return (
        f"loss or gradient was not finite in {many} step{'s in a row' * (many > 1)}, the last of them {last}: "
        f"{_lower(train)}, or mend these images; no weight has changed in them, and --resume goes on behind them"
    )


def _lower(train: TrainSection) -> str:
    return f"lower train.lr ({train.lr:g}) or train.head_lr ({train.head_lr:g}), or set train.autocast=off"
