"""How long models take, measured side by side."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch


@torch.no_grad()
def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call: in each round each is called once, so that what else the machine does hits all."""
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - started)
    return {name: median(times) for name, times in taken.items()}
