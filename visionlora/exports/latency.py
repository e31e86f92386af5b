"""How long models take, measured side by side."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn


def over_images(
    models: Mapping[str, nn.Module], run: Callable[[nn.Module, Tensor], object], images: Sequence[Tensor], rounds: int
) -> dict[str, float]:
    """``interleaved`` for models: ``run`` takes one and an image, and each round has another image."""

    def call(model: nn.Module, number: int) -> None:
        run(model, images[number % len(images)])

    return interleaved({name: partial(call, model) for name, model in models.items()}, rounds)


@torch.no_grad()
def interleaved(calls: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call: in each round each is called once, so that what else the machine does hits all.

    A call gets the number of the round, from 0, to take another image in each: the time of some detectors depends on
    what they find. All rounds are gone through twice, and the second time counts: whoever sees a shape first makes the
    kernels for it. Each round begins with another call, for what one leaves in the caches hits the next.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for counts in (False, True):
        for number in range(rounds):
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                started = time.perf_counter()
                calls[name](number)
                if counts:
                    taken[name].append(time.perf_counter() - started)
    return {name: median(times) for name, times in taken.items()}
