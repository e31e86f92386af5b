"""What must hold exactly, for every kind of layer with every method, and a range of architectures."""

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import (
    LAYERS,
    LAYERS_WITH_METHODS,
    METHODS,
    MODELS,
    STANDARDIZED,
    LayerCase,
    ModelCase,
    is_factor,
    perturb,
    wake,
)
from visionlora.adapters.layer import adapted_layers, methods_of

Case = LayerCase | ModelCase
CASES: list[tuple[Case, str]] = [*LAYERS_WITH_METHODS, *((case, "lora") for case in MODELS)]
CASES += [(case, method) for case in MODELS[:1] for method in METHODS[1:]]


@pytest.fixture(params=CASES, ids=lambda each: f"{each[0].name}-{each[1]}")
def chosen(request: pytest.FixtureRequest) -> tuple[Case, str]:
    return request.param


@pytest.fixture
def case(chosen: tuple[Case, str]) -> Case:
    return chosen[0]


@pytest.fixture
def config(chosen: tuple[Case, str]) -> vl.LoRAConfig:
    return vl.LoRAConfig(rank=2, method=chosen[1])


@pytest.fixture
def model(case: LayerCase | ModelCase) -> nn.Module:
    # A layer on its own is wrapped, for the root of a model has no name.
    made = wake(case.make())
    # Torch picks kernels by requires_grad, so the base is frozen like an adapted model is.
    return (nn.Sequential(made) if isinstance(case, LayerCase) else made).eval().requires_grad_(False)


@pytest.fixture
def x(case: LayerCase | ModelCase) -> Tensor:
    return torch.randn(case.shape if isinstance(case, LayerCase) else (2, 3, case.size, case.size))


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def adapted(model: nn.Module, config: vl.LoRAConfig) -> nn.Module:
    vl.attach(model, config)
    perturb(model)
    return model


def test_a_new_adapter_changes_nothing(model: nn.Module, x: Tensor, config: vl.LoRAConfig) -> None:
    base = run(model, x)
    vl.attach(model, config)
    assert torch.equal(run(model, x), base)


def test_every_factor_gets_a_gradient(model: nn.Module, x: Tensor, case: Case, config: vl.LoRAConfig) -> None:
    adapted(model, config)
    model(x).square().sum().backward()
    factors = {name: p for name, p in model.named_parameters() if is_factor(name)}
    dead = [name for name, p in factors.items() if p.grad is None or not p.grad.abs().sum() > 0]
    if case.name in STANDARDIZED:
        dead = [name for name in dead if "magnitude" not in name]
    assert factors and not dead
    assert all(p.grad is None for name, p in model.named_parameters() if not is_factor(name))


@pytest.mark.parametrize("chosen", [(case, "lora") for case in LAYERS], ids=lambda each: each[0].name)
def test_gradients_are_those_of_the_formula(model: nn.Module, x: Tensor, config: vl.LoRAConfig) -> None:
    """Against the chain rule by hand: full weight gradient G gives dB = s G A^T, dA = s B^T G."""
    adapted(model, config)
    model(x).square().sum().backward()
    plain = vl.merged(model).requires_grad_()
    plain(x).square().sum().backward()
    weights = dict(plain.named_parameters())
    for name, b in model.named_parameters():
        if not name.endswith("lora_B"):
            continue
        a = model.get_parameter(name.replace("lora_B", "lora_A"))
        layer, _, parameter = name.removesuffix(".lora_B").rpartition(".adapters.default.")
        gradient = weights[f"{layer}.{parameter}"].grad.flatten(1)
        scale = 16.0 / 2
        torch.testing.assert_close(b.grad, scale * gradient @ a.flatten(1).T, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(a.grad.flatten(1), scale * b.T @ gradient, rtol=1e-4, atol=1e-4)


def test_merged_equals_adapted_and_loads_strictly(model: nn.Module, x: Tensor, config: vl.LoRAConfig) -> None:
    base, keys = copy.deepcopy(model), list(model.state_dict())
    before = run(base, x)
    adapted(model, config)
    expected = run(model, x)
    assert not torch.allclose(expected, before, rtol=1e-5, atol=1e-6), "the adapter has no effect"
    vl.merge(model)
    assert torch.equal(run(model, x), expected)
    assert list(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == [type(m) for m in base.modules()]
    base.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(run(base, x), expected)
    again = copy.deepcopy(vl.merge(model).state_dict())
    assert all(torch.equal(again[key], value) for key, value in base.state_dict().items())


def test_the_norm_of_an_update_is_that_of_what_it_adds(model: nn.Module, config: vl.LoRAConfig) -> None:
    vl.attach(model, config)
    perturb(model, 0.5)
    for _, layer in adapted_layers(model):
        for parameter, method in methods_of(layer, "default").items():
            weight = layer._parameters[parameter]
            assert weight is not None
            norm = method.whole_update(weight).double().norm().item()
            assert method.update_norm(weight).item() == pytest.approx(norm, rel=1e-4)


def test_saved_equals_loaded(model: nn.Module, x: Tensor, config: vl.LoRAConfig, tmp_path: Path) -> None:
    fresh = copy.deepcopy(model)
    adapted(model, config)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    assert torch.equal(run(fresh, x), run(model, x))


def test_disabled_and_detached_are_the_base(model: nn.Module, x: Tensor, config: vl.LoRAConfig) -> None:
    base, expected = copy.deepcopy(model), run(model, x)
    adapted(model, config)
    with vl.disabled(model):
        assert torch.equal(run(model, x), expected)
    assert not torch.equal(run(model, x), expected)
    vl.detach(model)
    assert torch.equal(run(model, x), expected)
    assert list(model.state_dict()) == list(base.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in base.modules()]


def test_deep_copies_are_independent(model: nn.Module, x: Tensor, config: vl.LoRAConfig) -> None:
    base = run(model, x)
    adapted(model, config)
    expected = run(model, x)
    twin = copy.deepcopy(model)
    assert torch.equal(run(twin, x), expected)
    vl.detach(twin)
    assert torch.equal(run(twin, x), base)
    assert torch.equal(run(model, x), expected)
    other = copy.deepcopy(model)
    perturb(other)
    assert torch.equal(run(model, x), expected)


def test_pickle_and_torch_save_keep_the_model(model: nn.Module, x: Tensor, config: vl.LoRAConfig) -> None:
    adapted(model, config)
    expected = run(model, x)
    assert torch.equal(run(pickle.loads(pickle.dumps(model)), x), expected)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert torch.equal(run(torch.load(buffer, weights_only=False), x), expected)
