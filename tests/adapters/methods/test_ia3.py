"""(IA)3: rows at a scale of their own."""

import pytest
import torch
from timm.layers import StdConv2d
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import Attend


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 6), lambda: nn.Conv2d(4, 6, 3)], ids=["linear", "conv"])
def test_an_output_is_scaled_and_its_bias_is_not(make: type[nn.Module]) -> None:
    model, x = nn.Sequential(make()), torch.randn(2, *([4] if make().weight.dim() == 2 else [4, 5, 5]))
    layer = model[0]
    plain, bias = model(x).detach(), layer.bias.detach()
    report = vl.attach(model, vl.LoRAConfig(method="ia3"))
    assert report.adapter_parameters == 6 and report.adapted[0].rank is None
    scale = torch.linspace(-2, 2, 6)
    layer.adapters["default"]["weight"].ia3_scale.data.copy_(scale)

    def wide(values: Tensor) -> Tensor:
        return values.view(1, -1, *[1] * (plain.dim() - 2))

    torch.testing.assert_close(model(x), wide(scale) * (plain - wide(bias)) + wide(bias))
    fused, reference = (vl.set_route(model, route)(x) for route in ("auto", "reference"))
    found, expected = (
        torch.autograd.grad(out.square().sum(), layer.adapters["default"]["weight"].ia3_scale)[0]
        for out in (fused, reference)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_keys_and_values_alone_are_scaled() -> None:
    model = Attend()
    vl.attach(model, vl.LoRAConfig(method="ia3", targets=["attn:k,v"]))
    method = model.attn.adapters["default"]["in_proj_weight"]
    method.ia3_scale.data.fill_(2)
    frozen = model.attn._parameters["in_proj_weight"]
    assert torch.equal(model.attn.in_proj_weight, torch.cat([frozen[:16], 2 * frozen[16:]]))


def test_a_layer_that_brings_its_rows_to_one_length_is_refused_or_left_out() -> None:
    model = nn.Sequential(StdConv2d(3, 4, 3), nn.Conv2d(4, 5, 1))
    with pytest.raises(vl.InputError, match="which can't be adapted: it brings its weight's rows to one length"):
        vl.attach(model, vl.LoRAConfig(method="ia3", targets=["0"]))
    assert type(model[0]) is StdConv2d
    report = vl.attach(model, vl.LoRAConfig(method="ia3"))
    assert [layer.path for layer in report.adapted] == ["1"]
    assert "left out, it brings its weight's rows to one length" in str(report) and "0 (StdConv2d)" in str(report)
