"""The forward and backward passes of a step, in smaller parts once memory has run out."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from visionlora.adapters import norm
from visionlora.errors import InputError
from visionlora.tasks.evaluation import placed
from visionlora.tasks.memory import free_memory, out_of_memory
from visionlora.tasks.protocols import Batch
from visionlora.training.random_states import random_state, restore_random
from visionlora.training.state import RunState


class MicroBatches:
    """Gradients of a step's batches, each of which goes through the model as a whole if it fits into memory.

    Where it does not, gradients, BatchNorm's statistics and random numbers go back to the step's start, and its batches
    are replayed in micro-batches of at most half as many images; so are all batches after them. The parts' losses are
    weighed by ``Training.amount``, so that they add up to the batch's own where that is a mean over such amounts.
    Losses of another form, statistics of BatchNorm that trains, and what is drawn at random are those of the parts.
    Several processes take the same number of passes, so none of them can halve its own.

    Args:
        state: of the run, whose model is in training mode.
        autocast: the forward passes' precision; can be entered repeatedly.
        undo: brings BatchNorm's statistics back to the step's start.
        say: takes a line when memory has run out.

    Attributes:
        size: images of a micro-batch, 0 while whole batches fit.
        loss: the sum of the step's losses so far, ().
        losses: of the finite ones sum and number, (2,) float64.
        least: images that a part must have.
    """

    def __init__(
        self,
        state: RunState,
        autocast: AbstractContextManager[Any],
        undo: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._training, self._model, self._scaler = state.setup.training, state.model, state.scaler
        self._device, self._channels_last = state.device, state.train.channels_last
        self._processes, self._watch = state.processes, state.watch
        self._autocast, self._undo, self._say = autocast, undo, say
        self.size = state.progress.micro_batch
        self.least = 2 if norm.measuring(self._model) else 1  # a variance needs two

    def begin(self, batches: int) -> None:
        """Start a step of so many batches, without gradients."""
        self._batches, self._done = batches, list[tuple[Batch, int]]()
        self._random = random_state()
        self._restart()

    def add(self, batch: Batch, images: int) -> None:
        """Add the gradients of a batch of so many images, of which several processes have a share each.

        Raises:
            InputError: the smallest part of it does not fit into memory.
        """
        self._done.append((batch, images))
        waiting = [(batch, images)]
        while waiting:
            failed = None
            try:
                self._pass(*waiting[0])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                failed = str(error)
            if failed is None:
                del waiting[0]
                continue
            self._halve(len(waiting[0][0]["image"]), failed)
            self._model.zero_grad(set_to_none=True)
            self._undo()
            restore_random(self._random)
            free_memory()
            self._restart()
            waiting = list(self._done)

    @property
    def any(self) -> bool:
        """Whether the step has had a batch."""
        return bool(self._done)

    def _restart(self) -> None:
        self.loss = torch.zeros((), device=self._device)
        self.losses = torch.zeros(2, dtype=torch.float64, device=self._device)

    def _pass(self, batch: Batch, images: int) -> None:
        parts = self._parts(batch)
        shares = self._shares(parts)
        total, summands = torch.zeros((), device=self._device), dict[str, Tensor]()
        for part, share in zip(parts, shares, strict=True):
            there = placed(part, self._device, self._channels_last)
            with self._autocast:
                loss = self._processes.loss(self._training, self._model, there, images)
            self._watch.lap("forward")
            loss = loss if share is None else loss * share
            self._scaler.scale(loss / self._batches).backward()
            self._watch.lap("backward")
            total = total + loss.detach()
            if share is not None:
                for name, value in self._training.loss_parts.items():
                    summands[name] = summands.get(name, 0) + value * share
        if summands:
            self._training.loss_parts = summands
        finite = torch.isfinite(total)
        self.loss = self.loss + total
        self.losses += torch.stack([torch.where(finite, total, 0.0).double(), finite.double()])

    def _parts(self, batch: Batch) -> list[Batch]:
        """The batch in parts that are equal but for an image."""
        images = len(batch["image"])
        number = min(-(-images // self.size), images // self.least) if self.size else 1
        if number < 2:
            return [batch]
        ends = [images * index // number for index in range(number + 1)]
        return [{key: _part(value, *span, images) for key, value in batch.items()} for span in pairwise(ends)]

    def _shares(self, parts: list[Batch]) -> list[float | None]:
        if len(parts) == 1:
            return [None]
        amounts = [self._training.amount(part) for part in parts]
        return [amount / (sum(amounts) or 1) for amount in amounts]

    def _halve(self, images: int, error: str) -> None:
        now = min(self.size or images, images)
        if self._processes.several:
            raise InputError(
                f"out of memory with {now} images in one of {self._processes.size} processes; lower train.batch_size "
                f"and raise train.accumulate as much; {error.splitlines()[0]}"
            )
        if now < 2 * self.least:
            raise InputError(
                f"out of memory with {now} image{'s' * (now > 1)} at a time, and fewer can't be trained on: give the "
                f"model smaller images or take a smaller one; {error.splitlines()[0]}"
            )
        self.size = now // 2
        self._say(
            f"out of memory with {now} images at a time: the step is done again with {self.size}, as are all that "
            "follow; weights change as often as before"
        )


def _part(value: Any, start: int, end: int, images: int) -> Any:
    if isinstance(value, dict):
        return {key: _part(entry, start, end, images) for key, entry in value.items()}
    return value[start:end] if isinstance(value, Tensor | list) and len(value) == images else value
