"""The Tucker-shaped update is three layers, one after the other."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import visionlora as vl
from visionlora.adapters.methods.lora import LoRA
from visionlora.adapters.methods.tucker import Tucker


def filled(weight: torch.Tensor) -> Tucker:
    tucker = Tucker(weight, rank=3, alpha=6)
    nn.init.normal_(tucker.tucker_up)
    return tucker.requires_grad_(False)


def test_a_convolution_with_the_update_is_three_convolutions() -> None:
    weight, x = torch.randn(6, 8, 3, 3).double(), torch.randn(2, 8, 9, 9).double()
    tucker = filled(weight)
    down, up = tucker.tucker_down[:, :, None, None], tucker.tucker_up[:, :, None, None]
    narrow = F.conv2d(F.conv2d(x, down), tucker.tucker_core, stride=2, padding=1)  # (N, r, H, W)
    expected = 2 * F.conv2d(narrow, up)
    torch.testing.assert_close(F.conv2d(x, tucker.update(weight), stride=2, padding=1), expected)


def test_a_linear_layer_with_the_update_is_three_of_them() -> None:
    weight, x = torch.randn(6, 8).double(), torch.randn(5, 8).double()
    tucker = filled(weight)
    expected = 2 * x @ tucker.tucker_down.T @ tucker.tucker_core.T @ tucker.tucker_up.T
    torch.testing.assert_close(F.linear(x, tucker.update(weight)), expected)


def test_it_has_fewer_numbers_than_lora() -> None:
    sizes = {}
    for method in ("lora", "tucker"):
        report = vl.attach(nn.Sequential(nn.Conv2d(64, 48, 3)), vl.LoRAConfig(rank=4, method=method))
        sizes[method] = report.adapter_parameters
    assert sizes == {"lora": 4 * (48 + 64 * 9), "tucker": 4 * (48 + 64 + 4 * 9)}


@pytest.mark.parametrize("shape", [(64, 32), (64, 32, 3, 3)])
def test_core_and_down_are_as_large_as_loras_a(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    found = [Tucker(weight, 16, 16).factors(weight).A.square().mean() for _ in range(20)]
    expected = [LoRA(weight, 16, 16).lora_A.square().mean() for _ in range(20)]
    assert 0.5 < torch.stack(found).mean() / torch.stack(expected).mean() < 2
