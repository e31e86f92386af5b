"""``scripts/benchmark.py launches``: what a step asks of a device, counted without one."""

import pytest
import torch
from torch import nn

import visionlora as vl
from benchmark import main
from benchmarks.launches import count
from benchmarks.step_tasks import Setup

pytest.importorskip("peft")


def test_the_command_prints_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launches", "--model", "test_vit", "--size", "160", "--batch", "2", "--names", "3"]) == 0
    shown = capsys.readouterr().out
    assert all(f"│ {name}" in shown for name in ("floor", "full", "peft", "visionlora")) and "addmm" in shown


def test_a_vit_launches_fewer_kernels_than_with_peft_and_less_memory_than_full_fine_tuning_does_twice() -> None:
    setup = Setup("classification", None, "test_vit", batch=2, size=160)
    found = {name: count(name, setup) for name in ("floor", "full", "peft", "visionlora")}
    assert found["floor"].kernels < found["full"].kernels < found["visionlora"].kernels < found["peft"].kernels
    assert found["visionlora"].bytes < found["peft"].bytes


def test_a_cnn_writes_less_than_with_peft() -> None:
    setup = Setup("classification", None, "test_resnet", batch=2, size=64)
    assert count("visionlora", setup).bytes < 0.8 * count("peft", setup).bytes


def test_what_is_counted_is_what_computes() -> None:
    """A linear layer's forward, the loss, and their backward."""
    from benchmarks.launches import _Dispatched

    layer, x = nn.Linear(3, 2, device="meta"), torch.empty(4, 3, device="meta")
    with _Dispatched() as counted, torch.no_grad():
        layer(x).view(2, 4).t().add_(1)
    assert dict(counted.counts.names) == {"addmm": 1, "add_": 1}
    assert counted.counts.bytes == 4 * 2 * 4


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_read_back_to_the_host_would_be_an_error_there(method: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    vl.attach(model, vl.LoRAConfig(rank=2, method=method))
    vl.set_memory(model, "low")
    model.to("meta")
    output = model(torch.empty(2, 3, 8, 8, device="meta"))
    output.sum().backward()
    assert all(parameter.grad.is_meta for parameter in model.parameters() if parameter.requires_grad)
    with pytest.raises(RuntimeError, match="meta"):
        output.sum().item()
