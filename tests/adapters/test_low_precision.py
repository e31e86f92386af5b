"""Weights that are stored in 16 bits: a branch holds the update that they would round away."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import visionlora as vl
from helpers.cases import perturb

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(288, 64, bias=False), (512, 288)),
    "conv": (lambda: nn.Conv2d(32, 64, 3, bias=False), (512, 32, 3, 3)),
    "grouped conv": (lambda: nn.Conv2d(64, 64, 3, bias=False, groups=2), (512, 64, 3, 3)),
}


def hardly_seen(x: Tensor, layer: nn.Module) -> Tensor:
    """Inputs to which the layer itself hardly answers, so that its output doesn't round an update's effect away."""
    weight = layer.weight.detach().double()
    groups = getattr(layer, "groups", 1)
    kept = []
    for part, rows in zip(x.double().flatten(1).chunk(groups, 1), weight.flatten(1).chunk(groups), strict=True):
        kept.append(part - part @ torch.linalg.pinv(rows) @ rows)
    return torch.cat(kept, 1).view(x.shape).to(x.dtype)


def effect_is_off_by(model: nn.Module, x: Tensor, exact: Tensor) -> float:
    with torch.no_grad():
        with vl.disabled(model):
            base = model(x).double()
        effect = model(x).double() - base
    return float((effect - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", LAYERS)
def test_a_small_update_of_a_bf16_weight_has_its_effect_as_a_branch_only(name: str) -> None:
    make, shape = LAYERS[name]
    base = make().bfloat16()
    x = hardly_seen(torch.randn(shape), base).bfloat16()
    model = nn.Sequential(base)
    vl.attach(model, vl.LoRAConfig(rank=8, alpha=8))
    lora = base.adapters["default"]["weight"]
    with torch.no_grad():
        nn.init.normal_(lora.lora_B)
        size = base._parameters["weight"].double().square().mean().sqrt()
        lora.lora_B.mul_(1e-3 * size / lora.whole_update(base._parameters["weight"]).square().mean().sqrt())
        delta = lora.whole_update(base._parameters["weight"]).double()
        exact = F.linear(x.double(), delta) if name == "linear" else F.conv2d(x.double(), delta, groups=base.groups)
        assert float(delta.square().mean().sqrt() / size) == pytest.approx(1e-3, rel=1e-3)
    assert effect_is_off_by(model, x, exact) < 0.02
    assert effect_is_off_by(vl.set_route(copy.deepcopy(model), "reference"), x, exact) > 0.3, "the dense weight"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("route", ["auto", "factored", "dense"])
def test_a_model_stored_in_16_bits_trains_its_float32_factors(
    dtype: torch.dtype, autocast: torch.dtype | None, route: str
) -> None:
    layers = [nn.Conv2d(3, 6, 3, stride=2), nn.GELU(), nn.Conv2d(6, 6, 3, groups=2), nn.ReLU6(True)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(54, 4))
    exact = copy.deepcopy(model)
    for each in (model, exact):
        torch.manual_seed(1)
        vl.attach(each, vl.LoRAConfig(rank=2))
        perturb(each, 0.1)
    # Stored weights only: the factors stay as they are.
    for layer in model:
        for parameter in layer._parameters.values():
            if parameter is not None:
                parameter.data = parameter.data.to(dtype)
    vl.set_route(model, route)
    x = torch.randn(8, 3, 12, 12)
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        output = model(x if autocast else x.to(dtype))
    assert output.dtype == (autocast or dtype)
    output.float().square().sum().backward()
    expected = exact(x)
    expected.square().sum().backward()
    assert F.cosine_similarity(output.float().flatten(), expected.flatten(), dim=0) > 0.999
    wanted = dict(exact.named_parameters())
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            assert parameter.dtype == parameter.grad.dtype == torch.float32
            gradient = wanted[name].grad
            assert F.cosine_similarity(parameter.grad.flatten(), gradient.flatten(), dim=0) > 0.99, name


def test_the_branch_runs_without_gradients_too_and_merging_rounds_it() -> None:
    model = nn.Sequential(nn.Linear(8, 6)).bfloat16()
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model, 0.3)
    x = torch.randn(5, 8).bfloat16()
    expected = model(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(model(x), expected)
    merged = vl.merged(model)
    assert merged[0].weight.dtype == torch.bfloat16
    torch.testing.assert_close(merged(x), expected, rtol=0.05, atol=0.05)
    with vl.disabled(model):
        base = model(x)
    vl.detach(model)
    assert torch.equal(model(x), base)


def test_two_adapters_add_up_in_the_branch() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3)).bfloat16()
    for name in ("one", "two"):
        vl.attach(model, vl.LoRAConfig(rank=2), name=name)
    perturb(model, 0.3)
    x = torch.randn(2, 3, 7, 7).bfloat16()
    effects = []
    with torch.no_grad():
        for names in ([], ["one"], ["two"], ["one", "two"]):
            vl.activate(model, names)
            effects.append(model(x).float())
    base, one, two, both = effects
    torch.testing.assert_close(both - base, one + two - 2 * base, rtol=0.05, atol=0.05)
    assert not torch.allclose(both, one, atol=0.05) and not torch.allclose(both, two, atol=0.05)
