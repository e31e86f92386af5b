"""Ctrl+C at a known moment of a run in this process."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor, nn


@contextmanager
def ctrl_c_in_loss(monkeypatch: pytest.MonkeyPatch, training: type, call: int) -> Iterator[None]:
    """The so many-th call of the class's ``loss`` gets the signal first."""
    plain: Any = vars(training)["loss"]
    calls: list[int] = []

    def interrupting(self: Any, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        found: Tensor = plain(self, model, batch)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(training, "loss", interrupting)
        yield
