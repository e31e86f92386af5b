"""``lora.init=eva``: a run's adapter starts from the activations of some of its training images."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch

from visionlora.adapters.config import FROM_IMAGES
from visionlora.adapters.eva import start_from_data
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.tasks.base import SetUp
from visionlora.tasks.evaluation import placed
from visionlora.training.auto_rank import first_batches, with_ranks_of
from visionlora.training.folder import settings_before
from visionlora.training.random_states import seed_process


def with_known_ranks(config: RunConfig, resume: bool) -> RunConfig:
    """The config with the ranks that a run which goes on has found when it began."""
    if not _starts(config) or not resume:
        return config
    with suppress(InputError):  # there is none, as ``open_folder`` will say
        before = settings_before(config.out).lora
        if before.init == FROM_IMAGES:
            lora = replace(config.lora, rank_pattern=before.rank_pattern, alpha_pattern=before.alpha_pattern)
            return config.model_copy(update={"lora": lora})
    return config


def start_adapter(config: RunConfig, setup: SetUp, device: torch.device, say: Callable[[str], None]) -> RunConfig:
    """Start a new adapter from data, where ``config`` asks for it; the config with the ranks that its layers then have.

    Ranks move between layers unless ``lora.rank_pattern`` gives some; with ranks that were found before, the factors
    are those of before.

    Args:
        config: of the run.
        setup: whose model has been prepared; it goes to the device.
        device: where it is run.
        say: takes the ranks, as a table.

    Raises:
        InputError: what ``start_from_data`` raises.
    """
    if not _starts(config):
        return config
    model = setup.built.model.to(device)
    batches = [placed(batch, device, False)["image"] for batch in first_batches(setup.training)]
    found = start_from_data(model, batches, rho=1.0 if config.lora.rank_pattern else 2.0)
    seed_process(config.train.seed, 0, 0)  # what has been drawn so far depends on the ranks of before
    say(f"lora.init=eva: the adapter starts from the activations of some training images\n{found}")
    return config.model_copy(update={"lora": with_ranks_of(model, config.lora)})


def _starts(config: RunConfig) -> bool:
    return config.lora.init == FROM_IMAGES and config.train.method == "lora"
