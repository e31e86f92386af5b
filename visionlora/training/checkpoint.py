"""Everything that a stopped run needs to go on as if it had not stopped: safetensors and JSON."""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from visionlora.checksums import file_digest
from visionlora.errors import InputError
from visionlora.files import sync
from visionlora.plain_json import read_json
from visionlora.tensor_files import write_tensors
from visionlora.training.average import Average
from visionlora.training.checkpoint_schema import check_state
from visionlora.training.random_states import State, random_state, restore_random
from visionlora.training.resuming import refuse_other_data

KEEP = 2
_NAME = "step-{:08d}-{:04d}"
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: the current one, from 0.
        batch: batches of this epoch that are done.
        step: optimizer steps that are done.
        best, best_epoch: the monitored score's best value, None before the first evaluation.
        stale: evaluations since then.
        retained: what the best one keeps of what the base knew; None without ``train.retain``.
        loss_sum, loss_count: training loss since it was last logged.
        micro_batch: images that go through the model at a time since memory ran out; 0 while it has not.
        skipped, skipped_in_row: steps that were left out as loss or gradient was not finite, in all and up to this one.
        unreadable: training images that are left out: index, epoch when they were missed, files, reason.
        seconds: time spent, over all starts.
        metrics_bytes, metrics_sha256: length of metrics.jsonl, and the hash of so many bytes (older ones: none).
        events: bytes of each of TensorBoard's files; None in older ones.
        finished: whether the run has ended.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    retained: float | None = None
    loss_sum: float = 0.0
    loss_count: int = 0
    micro_batch: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    metrics_bytes: int = 0
    metrics_sha256: str = ""
    events: list[int] | None = field(default_factory=list)
    finished: bool = False


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: "torch.amp.GradScaler",
    base: str,
    data: dict[str, Any] | None = None,
    random_states: Sequence[State] | None = None,
    average: Average | None = None,
) -> None:
    """Write a checkpoint as a whole or not at all, and keep the last two.

    Args:
        folder: of the checkpoints.
        base: fingerprint of the frozen tensors; they are not stored.
        data: fingerprint of the images and their labels.
        random_states: of each process, in their order; by default of this one, which is the only one.
        average: of what trains, if there is one.
    """
    states = random_states or [random_state()]
    tensors = {f"model/{key}": tensor for key, tensor in changing(model).items()}
    state = optimizer.state_dict()
    for index, values in state["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in values.items()}
    tensors |= _random_tensors(states)
    tensors |= {f"average/{key}": tensor for key, tensor in (average.tensors if average else {}).items()}
    description = {
        "progress": asdict(progress),
        "groups": [group["params"] for group in state["param_groups"]],
        "scaler": scaler.state_dict(),
        "python_random": states[0]["python"],
        "numpy_random": states[0]["numpy"],
        "more_random": [[state["python"], state["numpy"]] for state in states[1:]],
        "base": base,
        "data": data,
        "manifest": True,
    }
    folder.mkdir(exist_ok=True)
    name = _NAME.format(progress.step, progress.epoch)
    temporary = folder / f".{name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write_tensors(tensors, temporary / _TENSORS)
    (temporary / _STATE).write_text(json.dumps(description), encoding="utf-8")
    (temporary / _MANIFEST).write_text(_manifest(temporary), encoding="utf-8")
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


class DamagedError(InputError):
    """A checkpoint is not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read of one."""

    path: Path
    tensors: dict[str, Tensor]
    description: dict[str, Any]

    @property
    def progress(self) -> Progress:
        """How far the run was."""
        return Progress(**{"events": None, **self.description["progress"]})


def newest_checkpoint(folder: Path, metrics: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest one that is whole and whose lines of the metrics are, and a line for each newer one.

    Raises:
        InputError: there are checkpoints, and none of them is.
    """
    faults: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            found = read_checkpoint(path)
            _check_metrics(metrics, found)
            return found, faults
        except DamagedError as error:
            faults.append(str(error))
    if faults:
        raise InputError(f"{faults[0]}; there is no other whole one to resume from: bring it back, or use --overwrite")
    return None, []


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises DamagedError unless every byte of it is as it was written."""
    try:
        description = read_json((path / _STATE).read_text(encoding="utf-8"))
        has_manifest = "manifest" in description or (path / _MANIFEST).exists()
        if has_manifest and (path / _MANIFEST).read_text(encoding="utf-8") != _manifest(path):
            raise DamagedError(f"{path}: the checkpoint is damaged: a file of it is not as {_MANIFEST} says")
        check_state(description)
        found = Checkpoint(path, load_file(path / _TENSORS), description)
        found.progress  # noqa: B018
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path}: the checkpoint is damaged ({error})") from error
    return found


def unreadable_images(folder: Path) -> list[Path]:
    """The images that the run of these checkpoints has left out, as the newest one says that can be read.

    Neither tensors nor hashes are looked at: who goes on from it does that.
    """
    for path in reversed(checkpoints(folder)):
        with suppress(OSError, ValueError):
            description = read_json((path / _STATE).read_text(encoding="utf-8"))
            check_state(description)
            return [Path(file) for entry in description["progress"].get("unreadable", []) for file in entry["files"]]
    return []


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it stands in nobody's way."""
    aside = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return path.rename(aside)


def load_checkpoint(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: "torch.amp.GradScaler",
    base: str,
    data: dict[str, Any] | None = None,
    process: int = 0,
    average: Average | None = None,
) -> Progress:
    """Bring model, optimizer and the global random states to where the checkpoint was written.

    The random states are those of ``process``, one of several. If there were not so many, they stay as they are.

    Raises:
        InputError: the data or the base's weights have changed since. Older checkpoints do not say with which data
            they were written.
    """
    path, tensors, description = checkpoint.path, checkpoint.tensors, checkpoint.description
    if data is not None and description.get("data") is not None:
        refuse_other_data(description["data"], data, path)
    if description["base"] != base:
        raise InputError(f"{path}: the base model's weights are not those that the run began with; bring them back")
    own = changing(model)
    stored = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
    if stored.keys() != own.keys():
        raise InputError(f"{path}: holds other tensors than this model trains; resume with the version that wrote it")
    if description["groups"] != [group["params"] for group in optimizer.state_dict()["param_groups"]]:
        raise InputError(f"{path}: its optimizer has other parameters; resume with the version that wrote it")
    try:
        model.load_state_dict(stored, strict=False)
        _load_optimizer(optimizer, tensors)
        if average is not None:
            own = {key.removeprefix("average/"): value for key, value in tensors.items() if key.startswith("average/")}
            average.load(own)
        scaler.load_state_dict(description["scaler"])
        if (state := _random_of(process, tensors, description)) is not None:
            restore_random(state)
    except (LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the checkpoint is damaged ({error}); bring it back, or use --overwrite") from error
    return checkpoint.progress


def _manifest(folder: Path) -> str:
    """Size and SHA-256 of the checkpoint's files, as JSON."""
    sizes = {name: {"bytes": (folder / name).stat().st_size} for name in (_STATE, _TENSORS)}
    return json.dumps({name: {**size, "sha256": file_digest(folder / name)} for name, size in sizes.items()}, indent=1)


def _check_metrics(metrics: Path, checkpoint: Checkpoint) -> None:
    size, expected = checkpoint.progress.metrics_bytes, checkpoint.progress.metrics_sha256
    there = metrics.stat().st_size if metrics.exists() else 0
    if there < size or (expected and file_digest(metrics, size) != expected):
        raise DamagedError(
            f"{metrics}: is damaged, its first {size} bytes are not those that {checkpoint.path.name} was written after"
        )


def changing(model: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters and all buffers, by their names in ``state_dict``."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    loaded: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            loaded.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": loaded, "param_groups": optimizer.state_dict()["param_groups"]})


def _place(process: int) -> str:
    """Where the tensors of a process's random state stand."""
    return f"random/process{process}/" if process else "random/"


def _random_tensors(states: Sequence[State]) -> dict[str, Tensor]:
    tensors = {}
    for process, state in enumerate(states):
        tensors[f"{_place(process)}cpu"] = state["cpu"]
        tensors |= {f"{_place(process)}cuda{index}": own for index, own in enumerate(state["cuda"])}
    return tensors


def _random_of(process: int, tensors: dict[str, Tensor], description: dict[str, Any]) -> State | None:
    """The random state of a process, if there was one of this number."""
    place = _place(process)
    if f"{place}cpu" not in tensors:
        return None
    plain = [description["python_random"], description["numpy_random"]]
    if process:
        plain = description["more_random"][process - 1]
    cuda = [name for name in tensors if name.startswith(f"{place}cuda")]
    in_order = sorted(cuda, key=lambda name: int(name.removeprefix(f"{place}cuda")))
    return {
        "cpu": tensors[f"{place}cpu"],
        "cuda": [tensors[name] for name in in_order],
        "python": plain[0],
        "numpy": plain[1],
    }
