"""Bytes that a training step needs."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn


def bytes_kept(model: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes of the storages that autograd keeps from a forward for the backward; the model's parameters are none.

    Args:
        model: in training mode.
        forward: computes a loss with it; what it returns is dropped afterwards.
    """
    return sum(kept_by(model, forward, lambda: "").values())


def kept_by(model: nn.Module, forward: Callable[[], object], place: Callable[[], str]) -> dict[str, int]:
    """The same by where the forward stood, as ``place`` says, when a storage was kept for the first time."""
    model_storages = {id_of(parameter) for parameter in model.parameters()}
    found: dict[int, tuple[str, int]] = {}
    # Kept here, for a storage's address means nothing once it is gone.
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        if id_of(tensor) not in model_storages:
            found.setdefault(id_of(tensor), (place(), tensor.untyped_storage().nbytes()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    kept: dict[str, int] = {}
    for where, size in found.values():
        kept[where] = kept.get(where, 0) + size
    return kept


def id_of(tensor: Tensor) -> int:
    """The address of the tensor's storage."""
    return tensor.untyped_storage().data_ptr()


def peak_of_process() -> int:
    """The most bytes so far: of tensors on a GPU, where there is one in use; else of the whole process. 0 where the
    system does not say.
    """
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    # Not getrusage: on Linux a new process's maximum begins with its parent's.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def restart_peak() -> bool:
    """Have ``peak_of_process`` begin anew; whether the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size
        return True
    return False
