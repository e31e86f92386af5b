"""``lora.rank=auto``: each layer's rank, by the gradients of a few batches."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.layer import adapted_layers, methods_of
from visionlora.adapters.methods.base import Method
from visionlora.adapters.spread import spread_ranks
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.tasks.evaluation import placed
from visionlora.tasks.protocols import Batch, Training
from visionlora.training.folder import settings_before
from visionlora.training.loop import autocast_context
from visionlora.training.random_states import random_state, restore_random
from visionlora.training.state import RunState

IMAGES = 64
"""So many training images, or a few more, are looked at."""
HEAD_STEPS = 30
"""A new head trains so long before, for one at zero lets no gradient through, and one at random a random one."""


def with_ranks(
    config: RunConfig, resume: bool, begin: Callable[[RunConfig], RunState], say: Callable[[str], None]
) -> RunConfig:
    """The config with a rank for each layer in the place of ``auto``; a run that goes on keeps those it began with.

    Args:
        config: of the run.
        resume: the run may have begun.
        begin: makes a run of a config, before its first step; the one that is measured is thrown away.
        say: takes the ranks, as a table.

    Raises:
        InputError: what ``attach`` and ``spread_ranks`` raise.
    """
    if config.lora.rank != "auto" or config.train.method != "lora":
        return config
    if resume:
        with suppress(InputError):  # there is none, as ``open_folder`` will say
            return config.model_copy(update={"lora": settings_before(config.out).lora})
    before = random_state()
    state = begin(config)
    training, device = state.setup.training, state.device
    state.model.train()

    batches = [placed(batch, device, config.train.channels_last) for batch in first_batches(training)]

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        with autocast_context(config.train, device):
            value: Tensor = training.loss(model, batch)
        return value

    _train_head(state.model, cycle(batches), loss, config.train.head_lr)
    spread = spread_ranks(state.model, batches, loss, budget=config.lora.budget)
    say(f"lora.rank=auto: ranks within {config.lora.budget}, by the gradients of some training images\n{spread}")
    restore_random(before)
    return config.model_copy(update={"lora": with_ranks_of(state.model, config.lora)})


def first_batches(training: Training) -> Iterable[Batch]:
    """The first epoch's first batches, with ``IMAGES`` images."""
    keys = training.train_batches(0)
    return training.train_loader(keys[: max(1, -(-IMAGES // max(1, len(keys[0]))))])


def _train_head(
    model: nn.Module, batches: Iterator[Batch], loss: Callable[[nn.Module, Batch], Tensor], lr: float
) -> None:
    """Train all that is unfrozen, and no factors."""
    methods = [module for module in model.modules() if isinstance(module, Method)]
    for method in methods:
        method.requires_grad_(False)
    if unfrozen := [parameter for parameter in model.parameters() if parameter.requires_grad]:
        optimizer = torch.optim.AdamW(unfrozen, lr=lr)
        for batch in islice(batches, HEAD_STEPS):
            optimizer.zero_grad(set_to_none=True)
            loss(model, batch).backward()
            optimizer.step()
    for method in methods:
        method.requires_grad_(True)


def with_ranks_of(model: nn.Module, lora: LoRAConfig) -> LoRAConfig:
    """The config with the rank and alpha that each adapted layer has, by its name."""
    methods = {path: list(methods_of(layer, "default").values()) for path, layer in adapted_layers(model)}
    ranks = {path: own[0].rank for path, own in methods.items()}
    alphas = {path: own[0].alpha for path, own in methods.items()}
    return replace(
        lora,
        rank=Counter(ranks.values()).most_common(1)[0][0],
        budget=None,
        rank_pattern=dict(ranks),
        alpha_pattern={**lora.alpha_pattern, **alphas},
    )
