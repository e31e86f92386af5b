"""A few steps of a run that is not kept: what a method costs."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from visionlora.studies.memory import bytes_kept
from visionlora.tasks.evaluation import placed
from visionlora.training.concluding import trainable
from visionlora.training.host_memory import freed_memory_kept
from visionlora.training.loop import autocast_context
from visionlora.training.state import RunState

STEPS = 5
"""Timed steps, after one that is not."""


@dataclass(frozen=True)
class Trial:
    """What one step of a run costs.

    Attributes:
        trainable: parameters that train.
        bytes_kept: from the forward for the backward, in a batch.
        step_seconds: the median of a step, its images read.
        images: in the batch.
        note: what to mind about the method, if anything.
    """

    trainable: int
    bytes_kept: int
    step_seconds: float
    images: int
    note: str = ""

    def __str__(self) -> str:
        return (
            f"{self.trainable:,} parameters, {1e3 * self.step_seconds:.0f} ms a step, "
            f"{self.bytes_kept / 2**20:.1f} MiB kept for the backward of {self.images} images"
            f"{f'; {self.note}' if self.note else ''}"
        )


def try_out(state: RunState, note: str = "", seconds: float = 0.0) -> Trial:
    """Train a few steps and drop them; nothing is written.

    Args:
        state: of a run before its first step.
        note: for the result.
        seconds: go on for so long, if that is more than ``STEPS``.
    """
    state.model.train()
    batches = _batches(state)
    first = placed(next(batches), state.device, state.train.channels_last)
    kept = bytes_kept(state.model, lambda: _loss(state, first))
    times: list[float] = []
    with freed_memory_kept(state.device, state.train.memory):
        _step(state, first)
        while len(times) < STEPS or sum(times) < seconds:
            started = time.perf_counter()
            _step(state, placed(next(batches), state.device, state.train.channels_last))
            if state.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    return Trial(trainable(state.model), kept, statistics.median(times), len(first["image"]), note)


def _batches(state: RunState) -> Iterator[dict[str, Any]]:
    """Training batches without end; those of an epoch that are not full are left out if there are full ones."""
    training, epoch = state.setup.training, 0
    while True:
        keys = training.train_batches(epoch)
        largest = max(map(len, keys))
        yield from training.train_loader([batch for batch in keys if len(batch) == largest])
        epoch += 1


def _loss(state: RunState, batch: dict[str, Any]) -> torch.Tensor:
    with autocast_context(state.train, state.device):
        return state.setup.training.loss(state.model, batch)


def _step(state: RunState, batch: dict[str, Any]) -> None:
    _loss(state, batch).backward()
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
