"""The way that adapted layers take on a GPU, on a CPU: what autograd records is what the fused operations compute."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import LAYERS_WITH_METHODS, MODELS, LayerCase, ModelCase, perturb, wake
from helpers.comparing import agree, gradients
from helpers.folded_models import lively
from visionlora.adapters import folded, forward
from visionlora.adapters.folded import kept_scale_and_shift, scale_and_shift


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Layers' decisions are noted; the scale of a folded BatchNorm stays with its layer."""
    decisions: list[Any] = []
    decide = forward.few_launches

    def few(_x: Tensor, route: Any, again: bool) -> bool:
        decisions.append(route)
        return decide(SimpleNamespace(is_cuda=True), route, again)

    monkeypatch.setattr(forward, "few_launches", few)
    monkeypatch.setattr(forward, "scale_and_shift_in_step", lambda layer, norm, _x: kept_scale_and_shift(layer, norm))
    return decisions


def reference(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    plain = copy.deepcopy(model)
    vl.set_route(plain, "reference")
    return gradients(plain, x)


@pytest.mark.parametrize(("case", "method"), LAYERS_WITH_METHODS, ids=lambda each: getattr(each, "name", each))
def test_layers(case: LayerCase, method: str, as_on_a_gpu: list[Any]) -> None:
    model = nn.Sequential(wake(case.make())).double().eval()
    vl.attach(model, vl.LoRAConfig(rank=2, method=method))
    perturb(model, 0.1)
    x = torch.randn(case.shape, dtype=torch.float64)
    agree(gradients(model, x), reference(model, x), 1e-10)


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_folded_models(case: ModelCase, method: str, as_on_a_gpu: list[Any]) -> None:
    model, x = lively(wake(case.make())).double().eval(), torch.randn(2, 3, case.size, case.size).double()
    vl.attach(model, vl.LoRAConfig(rank=2, method=method))
    perturb(model)
    expected = reference(model, x)
    vl.fold_batchnorm(model, x)
    for _ in range(2):  # the second time what was kept is used
        agree(gradients(model, x), expected, 1e-7)
    assert set(as_on_a_gpu) == {"auto"}


def test_less_memory_or_another_route_goes_by_the_fused_operation(
    as_on_a_gpu: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fused = forward.linear
    monkeypatch.setattr(forward, "linear", lambda *given: calls.append("fused") or fused(*given))
    model, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4)
    vl.attach(model, vl.LoRAConfig(rank=2))
    model(x)
    assert calls == []
    vl.set_memory(model, "low")
    model(x)
    vl.set_memory(model, "fast")
    vl.set_route(model, "factored")
    model(x)
    assert calls == ["fused", "fused"]


def test_what_was_kept_of_a_batchnorm_follows_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, norm = nn.Conv2d(3, 4, 1), lively(nn.BatchNorm2d(4).eval().requires_grad_(False))
    made: list[int] = []

    def count(batchnorm: Any) -> Any:
        made.append(1)
        return scale_and_shift(batchnorm)

    monkeypatch.setattr(folded, "scale_and_shift", count)

    def check(new: int) -> None:
        before = len(made)
        for _ in range(2):
            for found, expected in zip(kept_scale_and_shift(layer, norm), scale_and_shift(norm), strict=True):
                assert torch.equal(found, expected)
        assert len(made) - before == new

    check(1)
    check(0)
    norm.running_var.mul_(2)
    check(1)
    norm.load_state_dict({**norm.state_dict(), "bias": torch.ones(4)})
    check(1)
    norm.running_mean = torch.ones(4)
    check(1)
    norm.weight.requires_grad_()
    check(2)  # a graph is not kept
    norm.weight.requires_grad_(False)
    twin_layer, twin = copy.deepcopy((layer, norm))
    twin.running_mean.add_(1)
    assert torch.equal(kept_scale_and_shift(twin_layer, twin)[1], scale_and_shift(twin)[1])
    check(0)
