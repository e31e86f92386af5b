"""A whole run: from a config to a run folder."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from visionlora.adapters import norm
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.fingerprint import fingerprints
from visionlora.adapters.folding import fold_batchnorm
from visionlora.adapters.io import save_adapter
from visionlora.adapters.model import attach
from visionlora.adapters.report import Report
from visionlora.errors import InputError, some
from visionlora.files import write_json
from visionlora.sections import RunConfig
from visionlora.tasks.registry import task_of
from visionlora.tasks.set_up import SetUp
from visionlora.training.checkpoint import Progress, checkpoints, load_checkpoint
from visionlora.training.evaluation import evaluate
from visionlora.training.folder import ADAPTER, CHECKPOINTS, MODEL, REPORT, open_folder
from visionlora.training.loop import autocast_context, fit, steps_per_epoch
from visionlora.training.monitor import Monitor
from visionlora.training.optimizer import build_optimizer
from visionlora.training.plain import write_plain
from visionlora.training.trained import load_trained


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


def train(
    config: RunConfig,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    quiet: bool = False,
) -> Result:
    """Adapt a model as ``config`` says, and leave a run folder.

    Args:
        config: the whole run; ``config.out`` is the folder.
        resume: go on where the run in that folder was stopped, bit for bit.
        overwrite: replace the run in that folder.
        console: where progress is shown; by default the terminal.
        quiet: show the progress bar, and no text.

    Raises:
        InputError: anything about the input that can't be used.
        visionlora.training.loop.Interrupted: Ctrl+C; a checkpoint is written.
    """
    console = console or Console()
    device = pick_device(config.train.device)
    parts: SetUp = task_of(config.task).set_up(config)
    model, task = parts.model, parts.task
    report = prepare(config, parts)
    folder = open_folder(config, resume, overwrite)

    def say(text: str) -> None:
        if not quiet:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(parts.description)
    if parts.skipped:
        say(f"left out, for they can't be read: {some(parts.skipped)}")
    if parts.faulty:
        say(f"{len(parts.faulty)} faults of the annotations mended or left out (all are in {REPORT}):")
        say("\n".join(f"  {line}" for line in parts.faulty[:3]))
    say(str(report) if report else f"full fine-tuning: {_trainable(model):,} parameters train")

    memory_format = torch.channels_last if config.train.channels_last else torch.preserve_format
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    if report:
        fold_batchnorm(model, task.example(device))
    base = json.dumps(sorted(fingerprints(model, "default").items())) if report else ""
    optimizer = build_optimizer(model, parts.head, config.train)
    scaler = torch.amp.GradScaler(device.type, enabled=config.train.autocast == "fp16")
    progress = Progress()
    written = checkpoints(folder / CHECKPOINTS)
    if resume and written:
        progress = load_checkpoint(written[-1], model, optimizer, scaler, base)
        say(f"resumed from step {progress.step}, epoch {progress.epoch + 1}")

    total = steps_per_epoch(task, config.train) * config.train.epochs
    save_best = _saver(config, folder, parts)
    with Monitor(folder, progress.step, progress.metrics_bytes, total, console, quiet) as monitor:
        fit(model, task, config.train, folder, progress, optimizer, scaler, base, monitor, save_best)
        result = _conclude(config, folder, parts, device, progress)
        monitor.hyperparameters(_settings(config), result.scores)
    say(
        f"best epoch {result.best_epoch}: "
        + ("  ".join(f"{name} {value:.4f}" for name, value in result.scores.items()) or "no score")
        + f"\n{result.trainable:,} parameters trained, {result.saved_bytes / 1e6:.2f} MB saved, "
        f"{result.seconds:.0f} s; all of it is in {folder}"
    )
    return result


def prepare(config: RunConfig, parts: SetUp) -> Report | None:
    """Freeze and adapt the model as ``train.method`` says; the adapter's report, None for full fine-tuning."""
    method, lora = config.train.method, config.lora
    if method == "full":
        parts.model.requires_grad_()
        for name in parts.unused:
            parts.model.get_submodule(name).requires_grad_(False)
        for module in parts.model.modules():
            if parts.keep_statistics and norm.has_running_stats(module):
                norm.freeze(module)
        return None
    values = lora.model_dump()
    if method == "lora" and not lora.targets:
        raise InputError("lora.targets is empty; name some layers, or train the head alone with train.method=head")
    values["unfreeze"] = parts.head if lora.unfreeze is None else lora.unfreeze
    values["exclude"] = [*lora.exclude, *parts.unused]
    if method == "head":
        values |= {"targets": [], "exclude": [], "rank_pattern": {}, "alpha_pattern": {}, "batchnorm": "frozen"}
    return attach(parts.model, LoRAConfig(**values))


def pick_device(name: str) -> torch.device:
    """``auto`` is the first GPU, or else the CPU.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device '{name}' can't be used here; give auto, cpu or cuda:0") from error
    if device.type == "meta":
        raise InputError("device 'meta' computes nothing; give auto, cpu or cuda:0")
    return device


def _saver(config: RunConfig, folder: Path, parts: SetUp) -> Callable[[Any], None]:
    """What to call with the metrics of each new best epoch."""
    model, task, preprocessing = parts.model, parts.task, parts.preprocessing

    def save(metrics: Any) -> None:
        about = {
            "task": config.task,
            **task.describe(metrics),
            "model": parts.settings,
            "seed": config.train.seed,
            "scores": metrics.scores(),
        }
        if config.train.method != "full":
            save_adapter(model, folder / ADAPTER, classes=task.classes, preprocessing=preprocessing, extra=about)
            return
        write_plain(model, folder / MODEL, task.classes, preprocessing, about)

    return save


def _conclude(config: RunConfig, folder: Path, parts: SetUp, device: torch.device, progress: Progress) -> Result:
    """Evaluate the best epoch's file as anyone would load it, and write the report."""
    started = time.perf_counter()
    trained = load_trained(folder)
    task, metrics = parts.task, parts.task.metrics(device)
    autocast = autocast_context(config.train, device)
    evaluate(task.predictor(trained.model.to(device)), task.val_loader(), metrics, device, autocast)
    result = Result(
        folder=folder,
        scores=metrics.scores(),
        best_epoch=progress.best_epoch + 1,
        trainable=_trainable(parts.model),
        saved_bytes=trained.path.stat().st_size,
        seconds=progress.seconds + time.perf_counter() - started,
        per_class=metrics.per_class(),
        details=metrics.details(),
        skipped=[str(path) for path in parts.skipped],
        faulty=parts.faulty,
    )
    plain = asdict(result)
    details = plain.pop("details")
    write_json(folder / REPORT, {**plain, **details, "folder": str(folder)})
    return result


def _trainable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _settings(config: RunConfig) -> dict[str, Any]:
    sections = config.model_dump(mode="json")
    flat = {f"{s}.{k}": v for s, values in sections.items() if isinstance(values, dict) for k, v in values.items()}
    return {key: value for key, value in flat.items() if value not in (None, [], {})}
