"""A learning rate from one short rise of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from visionlora.errors import InputError
from visionlora.tasks.evaluation import placed
from visionlora.training.loop import autocast_context
from visionlora.training.state import RunState

STEPS, LOWEST, HIGHEST = 100, 1e-6, 1.0
_SMOOTHING = 0.9
_DIVERGED = 4.0
"""Times the lowest loss, smoothed: there is nothing to see beyond it."""
_BELOW = 10.0
"""The rate at which the loss is lowest is divided by this, for there it is about to rise again."""


@dataclass(frozen=True)
class Found:
    """What ``find_lr`` saw.

    Attributes:
        lr: the proposal, for ``train.lr``.
        lowest: the rate at which the smoothed loss was lowest.
        rates, losses: of each step, the losses smoothed.
    """

    lr: float
    lowest: float
    rates: list[float]
    losses: list[float]

    def __str__(self) -> str:
        last = "" if len(self.rates) == STEPS else f"; it was {self.losses[-1]:.3g} at {self.rates[-1]:.1e}"
        return (
            f"train.lr={self.lr:.1e}: a tenth of {self.lowest:.1e}, where the loss had fallen from "
            f"{self.losses[0]:.3g} to {min(self.losses):.3g}{last}"
        )


def find_lr(state: RunState, on_step: Callable[[int], None] = lambda _steps: None) -> Found:
    """Train over at most 100 steps while the learning rate rises from 1e-6 to 1, by the same factor at each step.

    The range test of Smith 2017 (arXiv:1506.01186, section 3.3): the rate at which the smoothed loss is lowest,
    divided by ten. Every group's rate keeps its proportion to ``train.lr``. The test ends where the loss has risen to
    four times its lowest, or is not finite.

    Args:
        state: a run before its first step, which can't be used afterwards.
        on_step: called with 1 after each step.

    Raises:
        InputError: the loss never fell: already the first one is the lowest, or is not finite.
    """
    training, optimizer, train = state.setup.training, state.optimizer, state.train
    groups = [(group, group["peak_lr"] / train.lr) for group in optimizer.param_groups]
    parameters = [parameter for group, _ in groups for parameter in group["params"]]
    rates: list[float] = []
    losses: list[float] = []
    mean, step, epoch = 0.0, 0, 0
    state.model.train()
    while step < STEPS:
        keys = training.train_batches(epoch)
        for batch in training.train_loader(keys[: STEPS - step]):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
            for group, share in groups:
                group["lr"] = rate * share
            with autocast_context(train, state.device):
                loss = training.loss(state.model, placed(batch, state.device, train.channels_last))
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * float(loss.detach())
            smoothed = mean / (1 - _SMOOTHING ** (step + 1))
            if not math.isfinite(smoothed) or (losses and smoothed > _DIVERGED * min(losses)):
                return _proposal(rates, losses)
            rates.append(rate)
            losses.append(smoothed)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if train.clip:
                torch.nn.utils.clip_grad_norm_(parameters, train.clip)
            optimizer.step()
            step += 1
            on_step(1)
        epoch += 1
    return _proposal(rates, losses)


def _proposal(rates: list[float], losses: list[float]) -> Found:
    if not losses:
        raise InputError("the first loss is not finite; look at the images and labels with check-data")
    place = losses.index(min(losses))
    if place == 0:
        raise InputError(
            "the loss fell at no learning rate; does anything that trains reach it, and are the labels right?"
        )
    return Found(rates[place] / _BELOW, rates[place], rates, losses)
