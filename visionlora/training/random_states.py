"""The states of the random generators that a model draws from: torch's, Python's and numpy's."""

import random
from typing import Any

import numpy as np
import torch

from visionlora.data.loading import sample_seed

State = dict[str, Any]
"""``cpu``, a uint8 tensor, and ``cuda``, one for each GPU if any is used; ``python`` and ``numpy``, plain."""


def random_state() -> State:
    """Of this process."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def restore_random(state: State) -> None:
    """The inverse of ``random_state``, also after a round through JSON. GPUs that are no longer there are left out."""
    torch.set_rng_state(state["cpu"])
    for index, own in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(own, index)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))


def seed_process(seed: int, step: int, rank: int) -> None:
    """Have one of several processes draw numbers of its own, from the optimizer step on at which it begins."""
    own = sample_seed(seed, step, -rank)  # below 0, as no sample's
    torch.manual_seed(own)
    random.seed(own)
    np.random.seed(own % 2**32)
