"""What trains beside any method: norms and biases; and parts of an update that are left out at random."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import visionlora as vl
from helpers.cases import METHODS, perturb


def resnet() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=3, zero_init_last=False)


def vit() -> nn.Module:
    return timm.create_model("test_vit", num_classes=3)


def trains(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad and ".adapters." not in f".{name}"}


@pytest.mark.parametrize("method", METHODS)
def test_norms_train_beside_every_method_with_frozen_statistics(method: str, tmp_path: Path) -> None:
    model, x = resnet().eval(), torch.randn(2, 3, 32, 32)
    expected = model(x)
    norms = {path for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    config = vl.LoRAConfig(rank=2, method=method, unfreeze=["norms", "fc"])
    report = vl.attach(model, config)
    assert trains(model) == {f"{path}.{name}" for path in (*norms, "fc") for name in ("weight", "bias")}
    torch.testing.assert_close(model(x), expected)
    assert not any("normalisation" in each.reason for each in report.left_out) and len(str(report).splitlines()) < 60
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    model.train()(x).square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad.sign()
    assert before and all(torch.equal(model.get_buffer(name), buffer) for name, buffer in before.items())
    vl.save_adapter(model, tmp_path / "a.safetensors")
    fresh = resnet()
    fresh.load_state_dict({k: v for k, v in vl_base(model).items() if k in fresh.state_dict()})
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    torch.testing.assert_close(fresh.eval()(x), model.eval()(x))


def vl_base(model: nn.Module) -> dict[str, torch.Tensor]:
    with vl.disabled(model):
        return {key: value.clone() for key, value in model.state_dict().items()}


def test_biases_train_alone_or_beside() -> None:
    model = vit()
    report = vl.attach(model, vl.LoRAConfig(targets=[], unfreeze=["biases"]))
    assert trains(model) == {name for name, _ in model.named_parameters() if name.endswith("bias")} and trains(model)
    assert report.adapter_parameters == 0
    both = vit()
    vl.attach(both, vl.LoRAConfig(targets=["attn.qkv"], unfreeze=["norms", "biases", "head"]))
    assert {"norm.weight", "blocks.0.attn.qkv.bias", "head.weight", "head.bias"} <= trains(both)
    assert "blocks.0.attn.qkv.weight" not in trains(both)


def test_a_module_called_so_is_that_module() -> None:
    model = nn.ModuleDict({"norms": nn.Linear(2, 2), "other": nn.LayerNorm(2)})
    vl.attach(model, vl.LoRAConfig(targets=[], unfreeze=["norms"]))
    assert trains(model) == {"norms.weight", "norms.bias"}


DROPPING = [method for method in METHODS if method not in ("lokr", "ia3")]


@pytest.mark.parametrize("method", DROPPING)
def test_parts_are_left_out_in_training_only_and_the_mean_stays(method: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(12, 9)), torch.randn(4, 12)
    vl.attach(model, vl.LoRAConfig(rank=4, method=method, factor_dropout=0.5))
    perturb(model, 0.3)
    whole = model.eval()(x)
    assert torch.equal(model(x), whole)
    model.train()
    drawn = torch.stack([model(x) for _ in range(400)])
    assert not torch.equal(drawn[0], drawn[1])
    if method not in ("dora", "loha"):  # of which the output is no linear function of one factor
        off = (drawn.mean(0) - whole).norm() / (drawn.std(0).norm() / 20)
        assert off < 2
    # What is merged, measured and combined is the whole.
    expected = model.eval()[0].weight.detach().clone()
    model.train()
    if method not in ("dora", "loha"):
        made = vl.combine(model, ["default"], name="again")
        torch.testing.assert_close(model.eval()[0].weight.detach(), expected)
        assert made.error == 0
        vl.activate(model.train(), "default")
    torch.testing.assert_close(vl.merged(model)[0].weight.detach(), expected)


def test_left_out_parts_get_no_gradient() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(20, 16))
    vl.attach(model, vl.LoRAConfig(rank=8, factor_dropout=0.5))
    perturb(model, 0.3)
    model.train()(torch.randn(3, 20)).square().sum().backward()
    method = model[0].adapters["default"]["weight"]
    silent = ~method.lora_B.grad.any(0)
    assert 0 < silent.sum() < 8 and torch.equal(silent, ~method.lora_A.grad.any(1))


def test_dropout_survives_the_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 6))
    vl.attach(model, vl.LoRAConfig(factor_dropout=0.25))
    vl.save_adapter(model, tmp_path / "a.safetensors")
    vl.detach(model)
    vl.load_adapter(model, tmp_path / "a.safetensors")
    assert model[0].adapters["default"]["weight"].factor_dropout == 0.25


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, True, "0.1"])
def test_a_share_out_of_its_range_is_refused(share: object) -> None:
    with pytest.raises(vl.InputError, match="give a share of at least 0 and below 1"):
        vl.LoRAConfig(factor_dropout=share)


@pytest.mark.parametrize("method", ["lokr", "ia3"])
def test_a_method_without_such_parts_refuses_it(method: str) -> None:
    model = nn.Sequential(nn.Linear(5, 6))
    with pytest.raises(vl.InputError, match=f"factor_dropout is 0.1, and {method} has no parts to leave out"):
        vl.attach(model, vl.LoRAConfig(method=method, factor_dropout=0.1))
    assert type(model[0]) is nn.Linear and "adapters" not in model[0]._modules
