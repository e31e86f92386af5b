"""The training loop, for every task."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.errors import InputError
from visionlora.sections import TrainSection
from visionlora.training.checkpoint import Progress, save_checkpoint
from visionlora.training.evaluation import evaluate, evaluation_copy, to_device
from visionlora.training.folder import CHECKPOINTS
from visionlora.training.layer_stats import layer_statistics
from visionlora.training.monitor import Monitor
from visionlora.training.optimizer import set_learning_rates


class Interrupted(Exception):
    """Ctrl+C or a polite kill: the run stopped after a whole step, and its checkpoint is written."""


def steps_per_epoch(task: Any, train: TrainSection) -> int:
    """Optimizer steps in an epoch."""
    return -(-len(task.train_batches(0)) // train.accumulate)


def fit(
    model: nn.Module,
    task: Any,
    train: TrainSection,
    folder: Path,
    progress: Progress,
    optimizer: torch.optim.Optimizer,
    scaler: "torch.amp.GradScaler",
    base: str,
    monitor: Monitor,
    save_best: Callable[[Any], None],
) -> None:
    """Train from where ``progress`` stands to the end, evaluating and writing checkpoints on the way.

    Args:
        model: what trains, on its device.
        task: has ``train_batches(epoch)``, ``train_loader(batches)``, ``loss(model, batch)``,
            ``loss_parts``, ``val_loader()``, ``predictor(model)``, ``metrics(device)``, ``figures(...)`` and
            ``monitor``.
        train: the settings.
        folder: of the run.
        progress: changed in place.
        optimizer, scaler: as ``progress`` left them.
        base: fingerprint of the frozen tensors, for checkpoints.
        monitor: takes what is logged.
        save_best: called with the metrics whenever the monitored score is the best so far, and after every epoch
            while there is no such score.

    Raises:
        InputError: the loss is no longer finite; the last checkpoint is from before.
        Interrupted: the run was asked to stop.
    """
    device = next(model.parameters()).device
    autocast = autocast_context(train, device)
    total, warmup = steps_per_epoch(task, train) * train.epochs, train.warmup_epochs * steps_per_epoch(task, train)
    loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=device)
    clock = time.perf_counter()

    def log(rates: dict[str, float]) -> None:
        mean = float(loss_sum) / progress.loss_count
        parts = {name: float(part) for name, part in task.loss_parts.items()}
        monitor.train_step(progress.step, progress.epoch, mean, parts, rates, layer_statistics(model))
        progress.loss_count = 0
        loss_sum.zero_()

    def checkpoint() -> None:
        nonlocal clock
        now = time.perf_counter()
        progress.seconds, clock = progress.seconds + now - clock, now
        progress.loss_sum, progress.metrics_bytes = float(loss_sum), monitor.metrics_bytes
        _refuse_not_finite(progress.loss_sum, progress, train)
        save_checkpoint(folder / CHECKPOINTS, progress, model, optimizer, scaler, base)

    with stop_requests() as stop_requested:
        while progress.epoch < train.epochs and not progress.finished:
            model.train()
            keys = task.train_batches(progress.epoch)
            for batch in task.train_loader(keys[progress.batch :]):
                first = progress.batch % train.accumulate == 0
                last = (progress.batch + 1) % train.accumulate == 0 or progress.batch + 1 == len(keys)
                if first:
                    group = min(train.accumulate, len(keys) - progress.batch)
                    rates = set_learning_rates(optimizer, progress.step, warmup, total)
                batch = _to(batch, device, train.channels_last)
                with autocast:
                    loss = task.loss(model, batch)
                scaler.scale(loss / group).backward()
                loss_sum += loss.detach()
                progress.loss_count += 1
                progress.batch += 1
                monitor.count_images(len(batch["image"]))
                if not last:
                    continue
                _step(optimizer, scaler, train.clip)
                progress.step += 1
                monitor.advance(progress.epoch, train.epochs, progress.step)
                if progress.step % train.log_every == 0:
                    _refuse_not_finite(float(loss_sum), progress, train)
                    log(rates)
                optimizer.zero_grad(set_to_none=True)
                stop = stop_requested()
                if stop or progress.step % train.checkpoint_every == 0:
                    checkpoint()
                if stop:
                    raise Interrupted(f"stopped at step {progress.step}; the same command with --resume goes on")
            _refuse_not_finite(float(loss_sum), progress, train)
            if (progress.epoch + 1) % train.evaluate_every == 0 or progress.epoch + 1 == train.epochs:
                _evaluate(model, task, train, device, autocast, progress, monitor, save_best)
                progress.finished = 0 < train.patience <= progress.stale
            progress.epoch, progress.batch = progress.epoch + 1, 0
            if progress.finished:
                monitor.say(f"stopped early: {task.monitor} has not risen for {progress.stale} evaluations")
            checkpoint()
        progress.finished = True


def _evaluate(
    model: nn.Module,
    task: Any,
    train: TrainSection,
    device: torch.device,
    autocast: AbstractContextManager[Any],
    progress: Progress,
    monitor: Monitor,
    save_best: Callable[[Any], None],
) -> None:
    plain, metrics = evaluation_copy(model), task.metrics(device)
    evaluate(task.predictor(plain), task.val_loader(), metrics, device, autocast)
    scores = metrics.scores()
    monitor.evaluation(progress.step, progress.epoch, scores, metrics.per_class())
    for tag, figure in task.figures(plain, metrics, device).items():
        monitor.figure(tag, figure, progress.step)
    # Where the validation images have nothing to measure it by, the score is missing, and the last epoch counts.
    value = scores.get(task.monitor)
    better = progress.best is None or (value is not None and value > progress.best)
    if better:
        progress.best, progress.best_epoch, progress.stale = value, progress.epoch, 0
        save_best(metrics)
    else:
        progress.stale += 1
    note = f"  (no {task.monitor}: nothing to measure it by)" if value is None else "  (best)" if better else ""
    shown = "".join(f"  {name} {score:.4f}" for name, score in scores.items())
    monitor.say(f"epoch {progress.epoch + 1}/{train.epochs}{shown}{note}")
    monitor.restart_clock()


def autocast_context(train: TrainSection, device: torch.device) -> AbstractContextManager[Any]:
    """The forward passes' precision; can be entered repeatedly."""
    dtype = torch.float16 if train.autocast == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=train.autocast != "off")


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl+C or SIGTERM into a request that the loop asks for; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        del frame
        if asked.is_set():
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        asked.set()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _step(optimizer: torch.optim.Optimizer, scaler: "torch.amp.GradScaler", clip: float) -> None:
    if clip:
        scaler.unscale_(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    scaler.step(optimizer)
    scaler.update()


def _to(batch: dict[str, Any], device: torch.device, channels_last: bool) -> dict[str, Any]:
    image = to_device(batch["image"], device)
    if channels_last and isinstance(image, Tensor):  # a list's images have three dimensions
        image = image.contiguous(memory_format=torch.channels_last)
    return {**batch, "image": image, "target": to_device(batch["target"], device)}


def _refuse_not_finite(loss_sum: float, progress: Progress, train: TrainSection) -> None:
    if not math.isfinite(loss_sum):
        raise InputError(
            f"the loss is no longer finite in epoch {progress.epoch + 1}, step {progress.step}: lower train.lr "
            f"({train.lr:g}) or train.head_lr ({train.head_lr:g}), or set train.autocast=off"
        )
