"""How long models take, measured side by side."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch


@torch.no_grad()
def interleaved(calls: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call: in each round each is called once, so that what else the machine does hits all.

    A call gets the number of the round, from 0, to take another image in each: the time of some detectors depends on
    what they find.
    """
    for call in calls.values():
        call(0)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call(number)
            taken[name].append(time.perf_counter() - started)
    return {name: median(times) for name, times in taken.items()}
