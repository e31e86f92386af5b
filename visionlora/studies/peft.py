"""A run with PEFT's own layers in the place of ours: the same targets, loop, order and schedule."""

import json
import re
import time
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from rich.console import Console
from torch import nn

from visionlora.adapters import norm
from visionlora.adapters.fingerprint import fingerprints
from visionlora.adapters.targets import Target, resolve
from visionlora.adapters.unfreezing import trains_fully
from visionlora.errors import InputError, some
from visionlora.sections import RunConfig
from visionlora.stopping import Interrupted, stop_requests
from visionlora.tasks.base import SetUp
from visionlora.tasks.evaluation import score
from visionlora.tasks.protocols import Metrics
from visionlora.tasks.registry import task_of
from visionlora.training.concluding import Result, trainable
from visionlora.training.distributed import ALONE
from visionlora.training.folder import PEFT, open_folder, write_config
from visionlora.training.loop import autocast_context, fit, steps_per_epoch
from visionlora.training.monitor import Monitor
from visionlora.training.run import begin, go_on, monitored, pick_device
from visionlora.training.state import RunState, as_trained

_FILE = "adapter_model.safetensors"
_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AS_THEY_ARE = {
    "rank_pattern": {},
    "alpha_pattern": {},
    "init": "kaiming",
    "factor_dropout": 0.0,
    "batchnorm": "frozen",
    "method": "lora",
}
"""Settings of ours that PEFT has no equal of."""


def refuse_without_peft() -> None:
    """Raise InputError unless PEFT is installed."""
    if find_spec("peft") is None:
        raise InputError("--methods peft: PEFT is not installed; pip install peft, or leave the method out")


def peft_to_try(config: RunConfig, device: torch.device) -> tuple[RunState, str]:
    """A run before its first step, which writes nothing, and a line about what PEFT leaves out."""
    setup = task_of(config.task).set_up(config)
    _, note = adapt(config, setup)
    return begin(config, setup, "", device, ALONE, folds=False), note


def train_with_peft(
    config: RunConfig, resume: bool = False, overwrite: bool = False, console: Console | None = None
) -> Result:
    """As ``training.run.train``, with PEFT's layers: their forward and backward, and their file in ``peft/``.

    BatchNorm is frozen, as it is with ours, and not folded. The score is the last epoch's.

    Raises:
        InputError: as ``train`` does, or PEFT can't adapt what the config names.
        visionlora.stopping.Interrupted: Ctrl+C, SIGTERM or SIGHUP; a checkpoint is written.
    """
    device, console = pick_device(config.train.device), console or Console()
    setup = task_of(config.task).set_up(config)
    monitor_name = monitored(config, setup, device)
    base = json.dumps(sorted(fingerprints(setup.built.model).items()))
    adapter, _ = adapt(config, setup)
    with open_folder(config, resume, overwrite):
        plain = begin(config, setup, monitor_name, device, ALONE, folds=False)
        state = PeftState(**{**vars(plain), "base": base, "adapter": adapter})
        if resume:
            go_on(state, lambda _text: None)
        write_config(config)
        total = steps_per_epoch(setup.training, config.train) * config.train.epochs
        with stop_requests() as asked, Monitor(state.folder, state.progress, total, console, quiet=True) as monitor:
            fit(state, monitor, asked)
            if number := asked():
                raise Interrupted("in the last evaluation", number)
            return _result(state)


@dataclass
class PeftState(RunState):
    """A run that saves PEFT's folder; ``adapter`` is the ``PeftModel`` around its model."""

    adapter: Any = None

    def save_best(self, metrics: Metrics) -> None:
        """Write what PEFT writes."""
        del metrics
        with self.average.shown():
            self.adapter.save_pretrained(self.folder / PEFT, save_embedding_layers=False)


def adapt(config: RunConfig, setup: SetUp) -> tuple[Any, str]:
    """Put PEFT's LoRA on the layers that ours would adapt, in place, and have the head train.

    Returns:
        the ``PeftModel``, and a line about the layers that PEFT can't adapt, empty where there are none.

    Raises:
        InputError: it can adapt none, or has no equal of a setting.
    """
    refuse_without_peft()
    from peft import LoraConfig, get_peft_model

    model, lora = setup.built.model, config.lora
    if other := [name for name, value in _AS_THEY_ARE.items() if getattr(lora, name) != value]:
        raise InputError(f"--methods peft: PEFT has no equal of lora.{other[0]}; leave it out of the config")
    targets, unfrozen, _ = resolve(model, lora.for_model(setup.built.head, setup.built.unused))
    layers, note = _adaptable(model, targets)
    # By the head's layers: PEFT takes every module whose name ends so, a ``head`` and its ``conv_head`` alike.
    head = [
        path
        for path, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and trains_fully(path, module, unfrozen)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names: Any = "|".join(map(re.escape, layers))  # matched whole; of a list, the ends of names would be
        of_peft: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha}
        adapter = get_peft_model(model, LoraConfig(**of_peft, target_modules=names, modules_to_save=head or None))
    for module in model.modules():
        if norm.has_running_stats(module):
            norm.freeze(module)
    _refuse_others(model, {*layers, *head})
    return adapter, note


def _adaptable(model: nn.Module, targets: list[Target]) -> tuple[list[str], str]:
    if parts := [target.path for target in targets if target.parts]:
        raise InputError(f"--methods peft: PEFT can't adapt parts of {parts[0]}; name it whole in lora.targets")
    modules = {target.path: model.get_submodule(target.path) for target in targets}
    layers = [p for p, layer in modules.items() if isinstance(layer, _KINDS) and getattr(layer, "groups", 1) == 1]
    left_out = [path for path in modules if path not in layers]
    if not layers:
        raise InputError(f"--methods peft: PEFT can adapt none of {some(modules)}")
    some_left = f"{len(left_out)} of {len(modules)} layers are left out, which PEFT can't adapt: {some(left_out, 3)}"
    return layers, some_left if left_out else ""


def _refuse_others(model: nn.Module, named: set[str]) -> None:
    """Raise InputError if something trains that was not named: PEFT knows modules by the ends of their names."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not any(name.startswith(f"{path}.") for path in named):
            raise InputError(f"--methods peft: PEFT would train {name} too; name what trains in lora.unfreeze")


def _result(state: RunState) -> Result:
    """What the run came to."""
    started = time.perf_counter()
    config, progress = state.config, state.progress
    with state.average.shown():
        metrics = score(
            as_trained(config, state.setup, state.model.eval()),
            state.setup.val,
            config.train.batch_size,
            config.data.workers,
            state.device,
            autocast=autocast_context(config.train, state.device),
        )
    return Result(
        folder=state.folder,
        scores=metrics.scores(),
        best_epoch=progress.best_epoch + 1,
        trainable=trainable(state.model),
        saved_bytes=(state.folder / PEFT / _FILE).stat().st_size,
        seconds=progress.seconds + time.perf_counter() - started,
        per_class=metrics.per_class(),
        skipped_steps=progress.skipped,
        spent=dict(state.watch.seconds),
    )
