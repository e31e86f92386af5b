"""A whole run: from a config to a run folder."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from visionlora.adapters import norm
from visionlora.adapters.config import FROM_IMAGES, LoRAConfig
from visionlora.adapters.fingerprint import fingerprints
from visionlora.adapters.folding import fold_batchnorm
from visionlora.adapters.model import attach, set_memory
from visionlora.adapters.report import Report
from visionlora.data.faults import tell_left_out
from visionlora.data.images import passing
from visionlora.errors import InputError, did_you_mean, printable, some
from visionlora.sections import RunConfig
from visionlora.stopping import stop_requests
from visionlora.tasks.base import SetUp
from visionlora.tasks.evaluation import example
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import ADAPTER, MODEL, read_metadata
from visionlora.training.auto_rank import with_ranks
from visionlora.training.average import Average
from visionlora.training.batch_size import with_batch_size
from visionlora.training.checkpoint import (
    Checkpoint,
    changing,
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    set_aside,
    unreadable_images,
)
from visionlora.training.compiling import check_compile, compile_steps
from visionlora.training.concluding import Result, conclude, trainable
from visionlora.training.data_start import start_adapter, with_known_ranks
from visionlora.training.distributed import ALONE, Processes, joined
from visionlora.training.features import drop_features, to_keep
from visionlora.training.features import keep as keep_features
from visionlora.training.folder import CHECKPOINTS, METRICS, REPORT, open_folder, settings_before, write_config
from visionlora.training.gate import gate_of
from visionlora.training.host_memory import freed_memory_kept
from visionlora.training.keeping import check_keeping
from visionlora.training.launch import wants_launch
from visionlora.training.loop import fit, steps_per_epoch
from visionlora.training.monitor import Monitor, NoMonitor
from visionlora.training.optimizer import build_optimizer
from visionlora.training.random_states import seed_process
from visionlora.training.resuming import changed_settings, data_fingerprint, fixed_settings
from visionlora.training.sharded import ShardedBase, refuse_sharding
from visionlora.training.state import RunState, as_trained


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
        visionlora.stopping.Interrupted: Ctrl+C, SIGTERM or SIGHUP; a checkpoint is written.
        visionlora.stopping.Lost, SaidElsewhere: of one of several processes; see ``distributed.joined``.
    """
    if wants_launch(config.train):
        raise InputError(
            f"train.devices={config.train.devices} is for the command line; start a program of your own with torchrun"
        )
    with joined() as processes:
        return _train(config, resume, overwrite, console or Console(), quiet, processes)


def _train(
    config: RunConfig, resume: bool, overwrite: bool, console: Console, quiet: bool, processes: Processes
) -> Result:
    refuse_sharding(config, processes)
    device = pick_device(processes.device(config.train.device))
    check_compile(config.train, device)

    def say(text: str) -> None:
        if processes.main and not quiet:
            console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    if processes.several and config.train.batch_size == "auto":
        raise InputError(f"train.batch_size=auto is for one process, and there are {processes.size}; give a number")
    config = with_batch_size(config, device, resume, lambda tried: run_to_try(tried, device), say)
    ranked = processes.from_main(lambda: with_ranks(config, resume, lambda tried: run_to_try(tried, device), say).lora)
    config = config.model_copy(update={"lora": ranked} if config.lora.rank == "auto" else {})
    known = processes.from_main(lambda: with_known_ranks(config, resume).lora)
    config = config.model_copy(update={"lora": known} if config.lora.init == FROM_IMAGES else {})
    left_out = processes.from_main(lambda: unreadable_images(config.out / CHECKPOINTS) if resume else [])
    with passing(left_out):
        setup = task_of(config.task).set_up(config)
    score_name = monitored(config, setup, device)
    check_keeping(config, setup)
    model = setup.built.model
    report = prepare(config, setup)
    config = start_adapter(config, setup, torch.device("cpu") if config.train.shard_base else device, say)
    gate = gate_of(config, device)
    if processes.several:
        _refuse_own_statistics(model)

    with ExitStack() as opened:
        if note := processes.from_main(lambda: opened.enter_context(open_folder(config, resume, overwrite))):
            say(note)
        say(setup.description)
        if setup.skipped:
            say(f"left out because they can't be read: {some(setup.skipped)}")
        if setup.faulty:
            say(tell_left_out(setup.faulty, f"all are in {REPORT}"))
        say(str(report) if report else f"full fine-tuning: {trainable(model):,} parameters train")
        if told := told_of_processes(config, processes, device):
            say(told)
        state = begin(config, setup, score_name, device, processes, folds=report is not None)
        if state.sharded:
            say(str(state.sharded))
        if gate is not None:
            say(str(gate))
            state.gate, state.data = gate, {**state.data, "retain": gate.fingerprint(config)}
        if resume:
            go_on(state, say)
        kept = to_keep(state) if config.train.cache_features else None
        compile_steps(state.model, config.task, config.train)
        processes.from_main(lambda: write_config(config))
        if kept is not None:
            keep_features(state, kept, say)
        total = steps_per_epoch(setup.training, config.train) * config.train.epochs
        with (
            freed_memory_kept(device, config.train.memory),
            stop_requests(patience=2 if processes.several else 1) as asked,
            Monitor(state.folder, state.progress, total, console, quiet) if processes.main else NoMonitor() as monitor,
        ):
            stop = processes.agreed(asked)
            fit(state, monitor, stop)
            result = conclude(state, stop)
            monitor.hyperparameters(_settings(config), result.scores)
        if kept is not None:
            drop_features(config.out)
    if result.unreadable:
        say(f"{len(result.unreadable)} training images could not be read to the end; all are in {REPORT}")
    if gate is not None and not gate.passes(result.retained):
        say(
            f"no epoch keeps {gate.at_least:g} of what the base knew (train.retain_at_least): the one that keeps most "
            "was taken; lower train.lr or lora.rank, or see eval --retain-at-least for less of its update"
        )
    say(
        f"best epoch {result.best_epoch}: "
        + ("  ".join(f"{name} {value:.4f}" for name, value in result.scores.items()) or "no score")
        + ("" if result.retained is None else f"  retained {result.retained:.4f}")
        + f"\n{result.trainable:,} parameters trained, {result.saved_bytes / 1e6:.2f} MB saved, "
        f"{result.seconds:.0f} s ({state.watch}); all of it is in {result.folder}"
    )
    if result.kept:
        say(str(result.kept))
    return result


def ready_to_try(config: RunConfig, say: Callable[[str], None] = lambda _text: None) -> RunState:
    """As ``run_to_try``, with a number of images and ranks for ``auto``.

    Raises:
        InputError: as ``train``.
    """
    refuse_sharding(config, ALONE)
    device = pick_device(config.train.device)
    config = with_batch_size(config, device, False, lambda tried: run_to_try(tried, device), say)
    return run_to_try(with_ranks(config, False, lambda tried: run_to_try(tried, device), say), device)


def run_to_try(config: RunConfig, device: torch.device) -> RunState:
    """A run before its first step, which will not be trained to its end; it writes nothing."""
    setup = task_of(config.task).set_up(config)
    return begin(config, setup, "", device, ALONE, folds=prepare(config, setup) is not None)


def begin(
    config: RunConfig, setup: SetUp, monitor: str, device: torch.device, processes: Processes, folds: bool
) -> RunState:
    """The run before its first step; the model, which goes to its device, is folded where it has an adapter."""
    model = setup.built.model
    shards = config.train.shard_base
    memory_format = torch.channels_last if config.train.channels_last else torch.preserve_format
    if not shards:  # else the whole might not fit
        model.to(device, memory_format=memory_format)
    at = torch.device("cpu") if shards else device
    one = example(as_trained(config, setup, model), setup.val, at) if folds else None
    if folds:
        fold_batchnorm(model, one)
    base = json.dumps(sorted(fingerprints(model, "default").items())) if folds else ""
    sharded = ShardedBase(model, processes, device, one) if shards else None
    optimizer = build_optimizer(model, setup.built.head, config.train)
    scaler = torch.amp.GradScaler(device.type, enabled=config.train.autocast == "fp16")
    data = data_fingerprint(task_of(config.task), setup)
    if processes.several:
        processes.refuse_differences({"settings": fixed_settings(config), "data": data, "base weights": base})
        processes.as_in_main(changing(model))
        if not processes.main:
            seed_process(config.train.seed, 0, processes.rank)
    average = Average(model, config.train.ema)
    return RunState(
        config, setup, monitor, device, optimizer, scaler, base, data, average, processes=processes, sharded=sharded
    )


def go_on(state: RunState, say: Callable[[str], None]) -> None:
    """Bring the run to where its last checkpoint was written, if there is one."""
    processes, train = state.processes, state.train
    newest, faults = processes.from_main(lambda: newest_checkpoint(state.folder / CHECKPOINTS, state.folder / METRICS))
    if newest is None:
        return
    if not processes.main:
        seed_process(train.seed, newest.progress.step, processes.rank)  # unless its own state was kept
    progress = load_checkpoint(
        newest, state.model, state.optimizer, state.scaler, state.base, state.data, processes.rank, state.average
    )
    if train.epochs < progress.epoch:
        raise InputError(
            f"train.epochs is {train.epochs}, and the run in {state.folder} has done {progress.epoch}; give more"
        )
    progress.finished = 0 < train.patience <= progress.stale
    state.progress = progress
    processes.from_main(lambda: _tell_of_resuming(state, newest, faults, say))


def _tell_of_resuming(state: RunState, newest: Checkpoint, faults: list[str], say: Callable[[str], None]) -> None:
    """Look at what else is there, put damaged checkpoints aside, and say from where the run goes on."""
    for name in (ADAPTER, MODEL):
        if (state.folder / name).exists():
            read_metadata(state.folder / name)  # the best epoch's; else the end would find that it is damaged
    progress = state.progress
    for fault in faults:
        say(f"{fault}; the checkpoint before is used")
    for path in checkpoints(state.folder / CHECKPOINTS):
        if path.name > newest.path.name:
            set_aside(path)
    say(f"resumed from step {progress.step}, epoch {progress.epoch + 1}")
    if changed := changed_settings(settings_before(state.folder), state.config):
        say(f"from now on with other settings: {some(changed)}")


def prepare(config: RunConfig, setup: SetUp) -> Report | None:
    """Freeze and adapt the model as ``train.method`` says; the adapter's report, None for full fine-tuning."""
    method, lora, freezes = config.train.method, config.lora, config.train.freeze_batchnorm
    if freezes and method != "full":
        raise InputError(
            "train.freeze_batchnorm is for train.method=full; with an adapter that is lora.batchnorm=frozen"
        )
    if method == "full":
        setup.built.model.requires_grad_()
        for name in setup.built.unused:
            setup.built.model.get_submodule(name).requires_grad_(False)
        for module in setup.built.model.modules():
            if (freezes or setup.keep_statistics) and norm.has_running_stats(module):
                norm.freeze(module)
        return None
    if method == "lora" and not lora.targets:
        raise InputError("lora.targets is empty; name some layers, or train the head alone with train.method=head")
    lora = lora.for_model(setup.built.head, setup.built.unused)
    if method == "head":
        return attach(setup.built.model, LoRAConfig(targets=[], unfreeze=lora.unfreeze))
    if lora.init == FROM_IMAGES:  # which ``start_adapter`` is for
        lora = replace(lora, init="kaiming")
    report = attach(setup.built.model, lora)
    set_memory(setup.built.model, config.train.memory)
    return report


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


def monitored(config: RunConfig, setup: SetUp, device: torch.device) -> str:
    """The score that decides. InputError unless ``train.monitor`` is one of the task's."""
    trained = as_trained(config, setup, setup.built.model)
    known = task_of(config.task).metrics(trained, setup.val, device).names
    monitor = config.train.monitor or known[0]
    if monitor not in known:
        nearest = did_you_mean(monitor, known)
        raise InputError(f"train.monitor is '{monitor}'; choose from {some(known, 16)}{nearest}")
    return monitor


def measures_statistics(model: nn.Module) -> str | None:
    """The first layer of BatchNorm that measures its statistics as it trains; None if there is none."""
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and norm.has_running_stats(module) and not norm.is_frozen(module):
            return name
    return None


def _refuse_own_statistics(model: nn.Module) -> None:
    """Raise InputError if BatchNorm would measure its statistics: each process would, over its share alone."""
    if (name := measures_statistics(model)) is not None:
        raise InputError(
            f"{name} would measure the statistics of BatchNorm in each process alone; freeze it "
            "(lora.batchnorm=frozen; with train.method=full train.freeze_batchnorm=true), or train in one process"
        )


def told_of_processes(config: RunConfig, processes: Processes, device: torch.device) -> str:
    """A line about several processes, or about GPUs that are left idle; empty where there is nothing to say."""
    if processes.several:
        each = config.train.batch_size / processes.size
        return f"{processes.size} processes share each batch of {config.train.batch_size} images, {each:g} each"
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    return f"1 of {there} GPUs is used; train.devices={there} trains on all of them" if there > 1 else ""


def _settings(config: RunConfig) -> dict[str, Any]:
    sections = config.model_dump(mode="json")
    flat = {f"{s}.{k}": v for s, values in sections.items() if isinstance(values, dict) for k, v in values.items()}
    return {key: value for key, value in flat.items() if value not in (None, [], {})}
