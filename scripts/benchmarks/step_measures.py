"""Time, bytes saved for the backward, and peak memory of a training step."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.step_methods import called_model, loss, make_case, make_step
from benchmarks.step_tasks import Setup
from visionlora.studies.memory import bytes_kept, peak_of_process

STEPS = {"cpu": 2, "cuda": 10}
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
    names, number_of_steps = list(steps), STEPS["cuda" if device.startswith("cuda") else "cpu"]
    for name in names:
        steps[name]()
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            steps[name]()
            _finish(device)
            started = time.perf_counter()
            for _ in range(number_of_steps):
                steps[name]()
            _finish(device)
            seconds[name].append((time.perf_counter() - started) / number_of_steps)
        on_round()
    return seconds


def saved_bytes(method: str, setup: Setup, batch: int) -> int:
    """Bytes of the storages that autograd keeps from a forward for the backward, parameters excluded."""
    case = make_case(method, setup, batch)
    called = called_model(case, setup)
    return bytes_kept(case.model, lambda: loss(case, called, setup))


def peak_bytes(method: str, setup: Setup) -> int:
    """The most memory that three steps need: of the whole process on a CPU, of tensors on a GPU."""
    step = make_step(method, setup)
    for _ in range(3):
        step()
    return peak_of_process()


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
