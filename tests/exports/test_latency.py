"""Whom a measurement calls, when, and what counts; times themselves are not tested."""

from functools import partial

import pytest
import torch

from visionlora.exports import latency
from visionlora.exports.latency import interleaved


class Clock:
    """Time that only calls make pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_the_second_time_counts_and_each_is_first_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = Clock(), []
    monkeypatch.setattr(latency, "time", clock)

    def call(name: str, number: int) -> None:
        assert not torch.is_grad_enabled()
        first_time = len(seen) < 6
        seen.append((name, number))
        clock.now += 100 if first_time else {"slow": 2, "fast": 1}[name] * (number + 1)

    seconds = interleaved({"slow": partial(call, "slow"), "fast": partial(call, "fast")}, rounds=3)
    assert seconds == {"slow": 4, "fast": 2}
    once = [("slow", 0), ("fast", 0), ("fast", 1), ("slow", 1), ("slow", 2), ("fast", 2)]
    assert seen == once * 2
