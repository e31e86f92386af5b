"""What an adapted layer returns is an ordinary tensor: whoever comes next may change it in place."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import LAYERS, LayerCase, perturb, wake
from helpers.comparing import agree, gradients

EDITS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu_": torch.relu_,
    "add_": lambda x: x.add_(0.5),
    "mul_": lambda x: x.mul_(-2),
    "+= itself": lambda x: x.add_(x.detach()),
    "a part": lambda x: x[..., :1].mul_(3).sum() + x,
}
MORE = [
    LayerCase("linear_4d_input", lambda: nn.Linear(8, 6), (2, 3, 4, 8)),
    LayerCase("linear_1d_input", lambda: nn.Linear(8, 6), (8,)),
    LayerCase("conv1d_1x1", lambda: nn.Conv1d(8, 6, 1), (2, 8, 9)),
    LayerCase("conv2d_1x1", lambda: nn.Conv2d(8, 6, 1), (2, 8, 9, 9)),
    LayerCase("conv2d_1x1_no_bias", lambda: nn.Conv2d(8, 6, 1, bias=False), (2, 8, 9, 9)),
    LayerCase("conv3d_1x1", lambda: nn.Conv3d(4, 6, 1), (2, 4, 5, 5, 5)),
    LayerCase("gelu_linear", lambda: nn.Sequential(nn.GELU(), nn.Linear(8, 6)), (2, 5, 8)),
    LayerCase("silu_conv", lambda: nn.Sequential(nn.SiLU(inplace=True), nn.Conv2d(8, 6, 1)), (2, 8, 9, 9)),
    LayerCase("linear_silu", lambda: nn.Sequential(nn.Linear(8, 6), nn.SiLU(inplace=True)), (2, 5, 8)),
]


class Edited(nn.Module):
    """A layer, and what is done to its output in place."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.edit = layer, torch.relu_

    def forward(self, x: Tensor) -> Tensor:
        return self.edit(self.layer(x * 1))


def edited(case: LayerCase, dtype: torch.dtype) -> tuple[Edited, Tensor]:
    torch.manual_seed(0)
    model = Edited(wake(case.make())).to(dtype)
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model, 0.1)
    return model, torch.randn(case.shape, dtype=dtype)


@pytest.mark.parametrize("case", [*LAYERS, *MORE], ids=lambda case: case.name)
@pytest.mark.parametrize("edit", EDITS)
def test_the_output_may_be_changed_in_place(case: LayerCase, edit: str) -> None:
    model, x = edited(case, torch.float64)
    model.edit = lambda y: EDITS[edit](y.clone())
    expected = gradients(vl.set_route(model, "reference"), x)
    model.edit = EDITS[edit]
    for route in ("auto", "factored", "dense", "reference"):
        agree(gradients(vl.set_route(model, route), x), expected, 1e-9)


@pytest.mark.parametrize("case", [*LAYERS, *MORE], ids=lambda case: case.name)
def test_the_output_of_a_layer_stored_in_bf16_may_be_changed_in_place(case: LayerCase) -> None:
    model, x = edited(case, torch.bfloat16)
    model.edit = lambda y: torch.relu(y)
    expected = gradients(model, x)
    model.edit = torch.relu_
    agree(gradients(model, x), expected, 0.0)


@pytest.mark.parametrize("case", [*LAYERS, *MORE], ids=lambda case: case.name)
def test_the_output_under_autocast_may_be_changed_in_place(case: LayerCase) -> None:
    model, x = edited(case, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        model.edit = lambda y: torch.relu(y)
        expected = gradients(model, x)
        model.edit = torch.relu_
        agree(gradients(model, x), expected, 0.0)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("adapts", [True, False])
def test_the_output_of_a_folded_convolution_may_be_changed_in_place(
    kernel: int, groups: int, edit: str, adapts: bool
) -> None:
    torch.manual_seed(0)
    pair = nn.Sequential(nn.Conv2d(8, 8, kernel, groups=groups), nn.BatchNorm2d(8)).double()
    pair[1].running_mean.normal_(), pair[1].running_var.uniform_(0.5, 2)
    model = Edited(nn.Sequential(nn.Conv2d(8, 8, 1).double(), pair))
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["layer.0", "layer.1.0"] if adapts else ["layer.0"]))
    perturb(model, 0.1)
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    model.edit = lambda y: EDITS[edit](y.clone())
    expected = gradients(model, x)
    model.edit = torch.relu
    assert vl.fold_batchnorm(model, x) == ["layer.1.1"]
    model.edit = EDITS[edit]
    agree(gradients(model, x), expected, 1e-9)
