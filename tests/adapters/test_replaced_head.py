"""A head that is put in after ``attach`` trains, and is kept."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18

import visionlora as vl
from helpers.cases import perturb
from visionlora.adapters.header import read_header


def step(model: nn.Module, x: torch.Tensor) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(x).square().sum().backward()
    optimizer.step()


@pytest.fixture
def base() -> nn.Module:
    return timm.create_model("test_vit", num_classes=10, img_size=32).eval()


X = torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize("unfreeze", [[], ["head"]])
@pytest.mark.parametrize("targets", [["attn.qkv"], "all"])
def test_a_classifier_that_was_reset_is_saved_and_loaded(
    base: nn.Module, tmp_path: Path, unfreeze: list[str], targets: object
) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=targets, unfreeze=unfreeze))
    perturb(model, 0.1)
    model.reset_classifier(4)
    start = model.head.weight.detach().clone()
    step(model, X)
    assert not torch.equal(model.head.weight, start)
    vl.save_adapter(model, tmp_path / "a.safetensors", classes=list("abcd"))
    assert read_header(tmp_path / "a.safetensors").unfrozen == ["head"]

    fresh = copy.deepcopy(base)
    with pytest.raises(vl.InputError, match="same number of classes"):
        vl.load_adapter(fresh, tmp_path / "a.safetensors")
    fresh.reset_classifier(4)
    report = vl.load_adapter(fresh, tmp_path / "a.safetensors")
    assert torch.equal(fresh(X), model(X)) and "head" in dict(report.unfrozen)
    vl.save_adapter(fresh, tmp_path / "b.safetensors")
    again = copy.deepcopy(base)
    again.reset_classifier(4)
    vl.load_adapter(again, tmp_path / "b.safetensors")
    assert torch.equal(again(X), model(X))
    backbone = copy.deepcopy(base)
    backbone.reset_classifier(0)
    vl.load_adapter(backbone, tmp_path / "a.safetensors", heads=False)


def test_a_new_head_of_several_layers_is_kept_whole_with_its_statistics(tmp_path: Path) -> None:
    base = resnet18(num_classes=3).eval()
    base.fc = nn.Identity()

    def head() -> nn.Module:
        return nn.Sequential(nn.Linear(512, 8), nn.BatchNorm1d(8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2)))

    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=2))
    model.fc = head()
    step(model.train(), torch.randn(4, 3, 32, 32))
    vl.save_adapter(model, tmp_path / "a.safetensors")
    assert read_header(tmp_path / "a.safetensors").unfrozen == ["fc"]
    fresh = copy.deepcopy(base)
    fresh.fc = head()
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    assert torch.equal(fresh.fc[1].running_mean, model.fc[1].running_mean)
    assert torch.equal(fresh.eval()(X), model.eval()(X))


def test_what_was_set_free_by_hand_is_kept_too(base: nn.Module, tmp_path: Path) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["attn.qkv"]))
    model.norm.requires_grad_(True)
    model.pos_embed.requires_grad_(True)
    model.blocks[0].attn.qkv.bias.requires_grad_(True)
    step(model, X)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    assert set(read_header(tmp_path / "a.safetensors").unfrozen) == {"norm", "pos_embed", "blocks.0.attn.qkv.bias"}
    fresh = copy.deepcopy(base)
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    assert torch.equal(fresh(X), model(X))
    with vl.disabled(fresh):
        assert torch.equal(fresh(X), base(X))


def test_a_frozen_weight_that_trains_under_its_adapter_is_refused(base: nn.Module, tmp_path: Path) -> None:
    vl.attach(base, vl.LoRAConfig(rank=2, targets=["attn.qkv"]))
    for parameter in base.blocks[0].attn.qkv.parameters(recurse=False):
        parameter.requires_grad = True
    with pytest.raises(vl.InputError, match="blocks.0.attn.qkv.weight trains itself under its adapter"):
        vl.save_adapter(base, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_adapter_that_is_not_active_is_saved_without(base: nn.Module, tmp_path: Path) -> None:
    vl.attach(base, vl.LoRAConfig(rank=2, targets=["attn.qkv"]), name="a")
    vl.attach(base, vl.LoRAConfig(rank=2, targets=["attn.qkv"]), name="b")
    base.reset_classifier(4)
    vl.save_adapter(base, tmp_path / "a.safetensors", name="a")
    assert read_header(tmp_path / "a.safetensors").unfrozen == []
