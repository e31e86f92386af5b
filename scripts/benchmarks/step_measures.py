"""Time, bytes saved for the backward, and peak memory of a training step."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.step_methods import loss, make_case, make_step
from benchmarks.step_tasks import Setup

STEPS = 2
"""Timed steps of one method in a round, after one that warms the caches as training does."""


@dataclass
class Measured:
    """Of one method: bytes saved for the backward, seconds of a step in each round, peak bytes (0: not asked for)."""

    saved: int
    seconds: list[float] = field(default_factory=list)
    peak: int = 0


def interleave(
    steps: dict[str, Callable[[], None]], rounds: int, device: str, on_round: Callable[[], None]
) -> dict[str, list[float]]:
    """Mean seconds of a step of each method in each round; who goes first changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for name in names:
        steps[name]()
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            steps[name]()
            _finish(device)
            started = time.perf_counter()
            for _ in range(STEPS):
                steps[name]()
            _finish(device)
            seconds[name].append((time.perf_counter() - started) / STEPS)
        on_round()
    return seconds


def saved_bytes(method: str, setup: Setup, batch: int) -> int:
    """Bytes of the storages that autograd keeps from a forward for the backward, parameters excluded."""
    case = make_case(method, setup, batch)
    model_storages = {id_of(parameter) for parameter in case.model.parameters()}
    found: dict[int, int] = {}
    # Kept here, for a storage's address means nothing once it is gone.
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        if id_of(tensor) not in model_storages:
            found[id_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    called: nn.Module = torch.compile(case.model) if setup.compile else case.model
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = loss(case, called, setup)
    del result
    return sum(found.values())


def peak_bytes(method: str, setup: Setup) -> int:
    """The most memory that three steps need: of the whole process on a CPU, of tensors on a GPU."""
    step = make_step(method, setup)
    for _ in range(3):
        step()
    return peak_of_process()


def peak_of_process() -> int:
    """The most bytes so far: of tensors on a GPU, where there is one in use; else of the whole process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    # Not getrusage: on Linux a new process's maximum begins with its parent's.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def id_of(tensor: Tensor) -> int:
    """The address of the tensor's storage."""
    return tensor.untyped_storage().data_ptr()


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
