"""``train.batch_size=auto``: how many images fit into a GPU's memory."""

from collections.abc import Callable
from contextlib import suppress

import torch

from visionlora.errors import InputError
from visionlora.sections import AUTO, RunConfig, TrainSection
from visionlora.tasks.evaluation import placed
from visionlora.tasks.memory import free_memory, out_of_memory
from visionlora.training.folder import settings_before
from visionlora.training.loop import autocast_context
from visionlora.training.state import RunState

UNTRIED: int = TrainSection.model_fields["batch_size"].default
"""What is taken where nothing can be tried: what runs into the limits of a CPU's memory is killed."""


def with_batch_size(
    config: RunConfig,
    device: torch.device,
    resume: bool,
    begin: Callable[[RunConfig], RunState],
    say: Callable[[str], None],
) -> RunConfig:
    """The config with a number of images for ``auto``; a run that goes on keeps the one that it began with.

    Args:
        config: of the run.
        device: that it will compute on; only a GPU's memory is tried.
        resume: the run may have begun.
        begin: makes a run of a config, before its first step; see ``largest_that_fits``.
        say: takes a line about the number.

    Raises:
        InputError: not even one image fits.
    """
    if config.train.batch_size != AUTO:
        return config
    if resume:
        with suppress(InputError):  # there is none, as ``open_folder`` will say
            return _with(config, settings_before(config.out).train.batch_size)
    if device.type == "cuda":
        size = largest_that_fits(config, begin)
        free_memory()  # of the model that was tried
        say(f"train.batch_size=auto: {size}, the largest power of two that the memory of {device} holds")
    else:
        size = UNTRIED
        say(f"train.batch_size=auto: {size} images; how many fit is tried on GPUs alone, give a number on others")
    return _with(config, size)


def largest_that_fits(config: RunConfig, begin: Callable[[RunConfig], RunState]) -> int:
    """The largest power of two with which two steps of the real model fit, at most the training images there are.

    Nothing of this stays: the run begins anew. Images of other shapes may take more memory later; then
    ``MicroBatches`` helps.

    Raises:
        InputError: not even one image fits.
    """
    state = begin(_with(config, 2))  # one would be refused where BatchNorm trains
    training, device = state.setup.training, state.device
    keys = [key for batch in training.train_batches(0) for key in batch]
    state.model.train()

    def fits(images: int) -> bool:
        try:
            (batch,) = training.train_loader([keys[:images]])
            for _ in range(2):  # the optimizer makes its state in the first
                with autocast_context(config.train, device):
                    loss = training.loss(state.model, placed(batch, device, config.train.channels_last))
                loss.backward()
                state.optimizer.step()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return False
        finally:
            state.optimizer.zero_grad(set_to_none=True)
        return True

    found = 0
    while (more := 2 * found or 1) <= len(keys) and fits(more):
        free_memory()
        found = more
    if not found:
        raise InputError(
            f"train.batch_size=auto: not one image fits into the memory of {device}; give the model smaller images, or "
            "take a smaller one"
        )
    return found


def _with(config: RunConfig, size: int) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_size": size})})
