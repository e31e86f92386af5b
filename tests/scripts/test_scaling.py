"""``scripts/benchmark.py scaling`` counts what is sent."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from benchmark import main
from benchmarks.scaling import OVERHEAD, all_reduce_seconds, message, trainable
from visionlora.training.distributed import Processes


@pytest.mark.parametrize("method", ["LoRA", "full"])
def test_the_count_is_what_a_step_sends(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = trainable("test_resnet", method, rank=2, classes=3)
    for parameter in parameters[1:]:
        parameter.grad = torch.ones_like(parameter)  # the first one's is another process's
    sent: list[torch.Tensor] = []

    def all_reduce(tensor: torch.Tensor, operation: Any = dist.ReduceOp.SUM) -> None:
        sent.append(tensor)
        if operation == dist.ReduceOp.MAX:
            tensor.fill_(1)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    Processes(rank=0, size=2).sum_gradients(parameters)
    flags, gradients = sent
    assert gradients.numel() * gradients.element_size() == message(parameters)
    assert flags.numel() == len(parameters)
    assert parameters[0].grad is not None and not parameters[0].grad.any()


def test_a_ring_sends_each_byte_nearly_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert all_reduce_seconds(8_000_000, 2, 1e9) == pytest.approx(0.008 + 2 * OVERHEAD)
    assert all_reduce_seconds(8_000_000, 64, 1e9) == pytest.approx(0.016 * 63 / 64 + 126 * OVERHEAD)
    assert main(["scaling", "--model", "test_resnet", "--classes", "3", "--rank", "2"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    parameters = [message(trainable("test_resnet", method, 2, 3)) for method in ("LoRA", "full")]
    assert [row[:3] for row in rows] == [
        ["test_resnet", name, f"{sent / 1e6:.2f}"] for name, sent in zip(("LoRA", "full"), parameters, strict=True)
    ]
