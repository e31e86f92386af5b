"""Where LoRA's factors start: on every kind of layer the model is the base's, and learns from what the start says."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import LAYERS, LayerCase, perturb
from visionlora.adapters.config import INITS
from visionlora.adapters.layer import adapted_layers, methods_of
from visionlora.adapters.methods.starts import FROM_WEIGHT


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("init", INITS[1:])
@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_a_new_adapter_changes_nothing_and_all_else_holds(case: LayerCase, init: str, tmp_path: Path) -> None:
    # Torch picks kernels by requires_grad, so the base is frozen like an adapted model is.
    model, x = nn.Sequential(case.make()).eval().requires_grad_(False), torch.randn(case.shape)
    expected, fresh = run(model, x), copy.deepcopy(model)
    vl.attach(model, vl.LoRAConfig(rank=2, init=init))
    if init in FROM_WEIGHT:
        torch.testing.assert_close(run(model, x), expected, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(run(model, x), expected)
    perturb(model, 0.1)
    adapted = run(model, x)
    assert not torch.allclose(adapted, expected, rtol=1e-3, atol=1e-3)
    model(x).square().sum().backward()
    assert all(p.grad.any() for name, p in model.named_parameters() if "lora_" in name)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    assert torch.equal(run(fresh, x), adapted)
    with vl.disabled(model):
        assert torch.equal(run(model, x), expected)
    torch.testing.assert_close(run(vl.merge(model), x), adapted)


@pytest.mark.parametrize("method", ["lora", "rslora"])
@pytest.mark.parametrize("alpha", [16, -3])
def test_pissa_starts_at_the_principal_part_of_the_weight(alpha: float, method: str) -> None:
    model = nn.Sequential(nn.Conv2d(5, 7, 3)).double()
    weight = model[0].weight.detach().flatten(1)
    vl.attach(model, vl.LoRAConfig(rank=3, alpha=alpha, init="pissa", method=method))
    lora = model[0].adapters["default"]["weight"]
    start = lora.scale * lora.lora_B @ lora.lora_A.flatten(1)
    sizes = torch.linalg.svdvals(weight)
    torch.testing.assert_close(torch.linalg.svdvals(start)[:3], sizes[:3])
    torch.testing.assert_close((weight - start).norm(), sizes[3:].norm())
    torch.testing.assert_close(lora.lora_A.flatten(1).norm(dim=1), lora.lora_B.norm(dim=0))


def test_orthogonal_starts_at_a_part_of_the_weights_qr() -> None:
    model = nn.Sequential(nn.Linear(6, 8)).double()
    weight = model[0].weight.detach().clone()
    vl.attach(model, vl.LoRAConfig(rank=3, alpha=3, init="orthogonal"))
    lora = model[0].adapters["default"]["weight"]
    torch.testing.assert_close(lora.lora_B.detach().T @ lora.lora_B.detach(), torch.eye(3).double())
    # What is left of the weight has nothing in the directions of B.
    rest = weight - (lora.lora_B @ lora.lora_A).detach()
    torch.testing.assert_close(lora.lora_B.detach().T @ rest, torch.zeros(3, 6).double())


def test_gaussian_has_the_deviation_of_its_rank() -> None:
    model = nn.Sequential(nn.Linear(2000, 8))
    vl.attach(model, vl.LoRAConfig(rank=4, init="gaussian"))
    lora = model[0].adapters["default"]["weight"]
    assert 0.24 < lora.lora_A.std() < 0.26 and not lora.lora_B.any()


def test_other_adapters_parts_padding_and_combining_are_not_in_the_way() -> None:
    model, x = nn.Sequential(nn.Linear(6, 8)).double(), torch.randn(2, 6).double()
    for name, rank in (("a", 2), ("b", 3)):
        vl.attach(model, vl.LoRAConfig(rank=rank, init="pissa"), name=name)
    perturb(model, 0.2)
    updates = {
        name: methods_of(layer, name)["weight"].whole_update(layer._parameters["weight"])
        for _, layer in adapted_layers(model)
        for name in "ab"
    }
    vl.activate(model, {"a": 0.5, "b": -1})
    wanted = model[0]._parameters["weight"] + 0.5 * updates["a"] - updates["b"]
    torch.testing.assert_close(model[0].weight.as_subclass(Tensor), wanted)
    expected = run(model, x)
    vl.pad_ranks(model)
    torch.testing.assert_close(run(model, x), expected)
    vl.combine(model, {"a": 0.5, "b": -1}, name="c")
    torch.testing.assert_close(run(model, x), expected)


def test_for_peft_it_is_a_plain_adapter_of_twice_the_rank(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(2, 3, 5, 5)
    fresh = copy.deepcopy(model)
    vl.attach(model, vl.LoRAConfig(rank=2, alpha=5, init="pissa", method="rslora"))
    perturb(model, 0.2)
    vl.save_peft(model, tmp_path / "peft")
    vl.load_peft(fresh, tmp_path / "peft")
    torch.testing.assert_close(run(fresh, x), run(model, x), rtol=1e-5, atol=1e-5)
    assert fresh[0].adapters["default"]["weight"].rank == 4


@pytest.mark.parametrize(
    ("method", "init"), [("lokr", "gaussian"), ("dora", "pissa"), ("lora_fa", "orthogonal"), ("tucker", "pissa")]
)
def test_a_method_without_such_a_start_is_refused(method: str, init: str) -> None:
    model = nn.Sequential(nn.Linear(5, 6))
    with pytest.raises(vl.InputError, match=f"init is '{init}', which a "):
        vl.attach(model, vl.LoRAConfig(method=method, init=init))
    assert "adapters" not in model[0]._modules


def test_an_unknown_init_is_refused_with_the_nearest() -> None:
    with pytest.raises(vl.InputError, match=r"init is 'pisa'; choose from .* \(did you mean 'pissa'\?\)"):
        vl.LoRAConfig(init="pisa")
