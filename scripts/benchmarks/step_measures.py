"""Time, bytes saved for the backward, and peak memory of a training step."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.step_methods import loss, make_case, make_step
from benchmarks.step_tasks import Setup
from visionlora.studies.memory import bytes_kept, peak_of_process

STEPS = {"cpu": 2, "cuda": 10}
"""Timed steps of one method in a round, after one that warms the caches as training does."""


@dataclass
class Measured:
    """Of one method; what was not asked for is 0.

    Attributes:
        saved: bytes kept for the backward.
        first: seconds of the first step, in which a compiled model is compiled.
        seconds: of a step in each round.
        peak: bytes.
    """

    saved: int = 0
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def step(self) -> float:
        """Seconds of a step, the median over the rounds."""
        return statistics.median(self.seconds)


def interleave(
    steps: dict[str, Callable[[], None]], rounds: int, device: str, on_round: Callable[[], None]
) -> dict[str, Measured]:
    """Seconds of each method's first step, and the mean of one in each round; who goes first changes every round."""
    found = {name: Measured() for name in steps}
    names, number_of_steps = list(steps), STEPS["cuda" if device.startswith("cuda") else "cpu"]
    for name in names:
        found[name].first = _timed(steps[name], 1, device)
        on_round()
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            steps[name]()
            found[name].seconds.append(_timed(steps[name], number_of_steps, device) / number_of_steps)
        on_round()
    return found


def _timed(step: Callable[[], None], times: int, device: str) -> float:
    _finish(device)
    started = time.perf_counter()
    for _ in range(times):
        step()
    _finish(device)
    return time.perf_counter() - started


def saved_bytes(method: str, setup: Setup, batch: int) -> int:
    """Bytes of the storages that autograd keeps from a forward for the backward, parameters excluded."""
    case = make_case(method, setup, batch)
    return bytes_kept(case.model, lambda: loss(case, case.model, setup))


def peak_bytes(method: str, setup: Setup) -> int:
    """The most memory that three steps need: of the whole process on a CPU, of tensors on a GPU."""
    step = make_step(method, setup)
    for _ in range(3):
        step()
    return peak_of_process()


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
