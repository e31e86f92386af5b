"""Everything that a stopped run needs to go on as if it had not stopped: safetensors and JSON."""

import json
import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from visionlora.errors import InputError
from visionlora.files import sync, write_tensors
from visionlora.training.resuming import refuse_other_data

KEEP = 2
_NAME = "step-{:08d}-{:04d}"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: the current one, from 0.
        batch: batches of this epoch that are done.
        step: optimizer steps that are done.
        best, best_epoch: the monitored score's best value, None before the first evaluation.
        stale: evaluations since then.
        loss_sum, loss_count: training loss since it was last logged.
        skipped, skipped_in_row: steps that were left out as loss or gradient was not finite, in all and up to this one.
        seconds: time spent, over all starts.
        metrics_bytes: length of metrics.jsonl.
        finished: whether the run has ended.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0
    finished: bool = False


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: "torch.amp.GradScaler",
    base: str,
    data: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint as a whole or not at all, and keep the last two.

    Args:
        folder: of the checkpoints.
        base: fingerprint of the frozen tensors; they are not stored.
        data: fingerprint of the images and their labels.
    """
    tensors = {f"model/{key}": tensor for key, tensor in _changing(model).items()}
    state = optimizer.state_dict()
    for index, values in state["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in values.items()}
    tensors |= _random_tensors()
    description = {
        "progress": asdict(progress),
        "groups": [group["params"] for group in state["param_groups"]],
        "scaler": scaler.state_dict(),
        "python_random": random.getstate(),
        "numpy_random": _numpy_state(),
        "base": base,
        "data": data,
    }
    folder.mkdir(exist_ok=True)
    name = _NAME.format(progress.step, progress.epoch)
    temporary = folder / f".{name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    write_tensors(plain, temporary / "tensors.safetensors")
    (temporary / "state.json").write_text(json.dumps(description), encoding="utf-8")
    for path in (*temporary.iterdir(), temporary):
        sync(path)
    shutil.rmtree(folder / name, ignore_errors=True)
    temporary.replace(folder / name)
    sync(folder)
    for old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: "torch.amp.GradScaler",
    base: str,
    data: dict[str, Any] | None = None,
) -> Progress:
    """Bring model, optimizer and the global random states to where the checkpoint was written.

    Raises:
        InputError: it is damaged, or the data or the base's weights have changed since. Older checkpoints do not say
            with which data they were written.
    """
    try:
        tensors = load_file(path / "tensors.safetensors")
        description = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path}: the checkpoint is damaged ({error}); delete it to resume from the one before"
        ) from error
    if data is not None and description.get("data") is not None:
        refuse_other_data(description["data"], data, path)
    if description["base"] != base:
        raise InputError(f"{path}: the base model's weights are not those that the run began with; bring them back")
    changing = _changing(model)
    stored = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
    if stored.keys() != changing.keys():
        raise InputError(f"{path}: holds other tensors than this model trains; resume with the version that wrote it")
    model.load_state_dict(stored, strict=False)
    _load_optimizer(optimizer, tensors, description["groups"])
    scaler.load_state_dict(description["scaler"])
    _restore_random(tensors, description)
    return Progress(**description["progress"])


def _changing(model: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters and all buffers, by their names in ``state_dict``."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[list[int]]) -> None:
    state = optimizer.state_dict()
    if [group["params"] for group in state["param_groups"]] != groups:
        raise InputError("the checkpoint's optimizer has other parameters; resume with the version that wrote it")
    loaded: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            loaded.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": loaded, "param_groups": state["param_groups"]})


def _random_tensors() -> dict[str, Tensor]:
    states = {"random/cpu": torch.get_rng_state()}
    for index, state in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []):
        states[f"random/cuda{index}"] = state
    return states


def _numpy_state() -> list[Any]:
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return [name, np.asarray(keys).tolist(), position, has_gauss, cached]


def _restore_random(tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    torch.set_rng_state(tensors["random/cpu"])
    for index in range(torch.cuda.device_count()):
        if (state := tensors.get(f"random/cuda{index}")) is not None:
            torch.cuda.set_rng_state(state, index)
    version, internal, gauss = description["python_random"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = description["numpy_random"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))
