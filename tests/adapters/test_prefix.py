"""An adapter carries over between a backbone alone and a model around it."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import visionlora as vl

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
BACKBONES = ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"]


def backbone(name: str) -> nn.Module:
    torch.manual_seed(1)
    options = {"img_size": 32} if name == "test_vit" else {"zero_init_last": False} if name == "test_resnet" else {}
    return timm.create_model(name, num_classes=3, **options).eval()


class Around(nn.Module):
    """A model of another task: its own head over the backbone's features."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"body": body})
        self.head = nn.Linear(body.num_features, 7)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone["body"].forward_features(x)  # type: ignore[operator]
        pooled = features.mean(dim=1 if features.ndim == 3 else (2, 3))
        result: Tensor = self.head(pooled)
        return result


def features(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        result: Tensor = model.eval().forward_features(IMAGE)  # type: ignore[operator]
    return result


def move(model: nn.Module) -> None:
    """An adapter as training leaves it."""
    for path, parameter in model.named_parameters():
        if path.endswith(("lora_A", "lora_B")):
            nn.init.normal_(parameter, std=0.05)


@pytest.mark.parametrize("name", BACKBONES)
def test_from_the_whole_to_the_backbone(name: str, tmp_path: Path) -> None:
    whole = Around(backbone(name))
    vl.attach(whole, vl.LoRAConfig(rank=2, unfreeze=["head"]))
    move(whole)
    vl.save_adapter(whole, tmp_path / "a.safetensors")
    alone = backbone(name)
    report = vl.load_adapter(alone, tmp_path / "a.safetensors", prefix="backbone.body")
    assert torch.allclose(features(alone), features(whole.backbone["body"]), atol=1e-6)
    assert not torch.allclose(features(alone), features(backbone(name)), atol=1e-3)
    assert len(report.adapted) == len(vl.read_header(tmp_path / "a.safetensors").layers)
    vl.merge(alone)
    backbone(name).load_state_dict(alone.state_dict())


@pytest.mark.parametrize("name", BACKBONES)
def test_from_the_backbone_to_the_whole(name: str, tmp_path: Path) -> None:
    alone = backbone(name)
    head = "head" if name == "test_vit" else "head.fc" if name == "test_convnext" else alone.default_cfg["classifier"]
    vl.attach(alone, vl.LoRAConfig(rank=2, unfreeze=[head]))
    move(alone)
    vl.save_adapter(alone, tmp_path / "a.safetensors")
    whole = Around(backbone(name))
    vl.load_adapter(whole.backbone["body"], tmp_path / "a.safetensors", heads=False)
    assert torch.allclose(features(whole.backbone["body"]), features(alone), atol=1e-6)


def test_what_comes_from_a_prefix_can_be_saved_and_loaded_again(tmp_path: Path) -> None:
    whole = Around(backbone("test_resnet"))
    vl.attach(whole, vl.LoRAConfig(rank=2, unfreeze=["head"]))
    move(whole)
    vl.save_adapter(whole, tmp_path / "a.safetensors")
    alone, again = backbone("test_resnet"), backbone("test_resnet")
    vl.load_adapter(alone, tmp_path / "a.safetensors", prefix="backbone.body")
    vl.save_adapter(alone, tmp_path / "b.safetensors")
    vl.load_adapter(again, tmp_path / "b.safetensors")
    assert torch.equal(features(again), features(alone))


def test_a_frozen_head_may_be_absent_where_heads_are_left_out(tmp_path: Path) -> None:
    alone, headless = backbone("test_resnet"), backbone("test_resnet")
    headless.reset_classifier(0)  # type: ignore[operator]
    vl.attach(alone, vl.LoRAConfig(rank=2, exclude=["fc"]))
    move(alone)
    vl.save_adapter(alone, tmp_path / "a.safetensors")
    with pytest.raises(vl.InputError, match="has no fc.weight, fc.bias"):
        vl.load_adapter(headless, tmp_path / "a.safetensors")
    vl.load_adapter(headless, tmp_path / "a.safetensors", heads=False)
    assert torch.equal(features(headless), features(alone))


def test_an_adapted_layer_may_not_be_absent(tmp_path: Path) -> None:
    alone, headless = backbone("test_resnet"), backbone("test_resnet")
    headless.reset_classifier(0)  # type: ignore[operator]
    vl.attach(alone, vl.LoRAConfig(rank=2))
    vl.save_adapter(alone, tmp_path / "a.safetensors")
    with pytest.raises(vl.InputError, match="has no fc.weight"):
        vl.load_adapter(headless, tmp_path / "a.safetensors", heads=False)
    assert vl.adapter_names(headless) == []


def test_another_base_under_the_prefix_is_refused(tmp_path: Path) -> None:
    whole = Around(backbone("test_resnet"))
    vl.attach(whole, vl.LoRAConfig(rank=2, unfreeze=["head"]))
    vl.save_adapter(whole, tmp_path / "a.safetensors")
    other = backbone("test_resnet")
    with torch.no_grad():
        other.layer1[0].conv1.weight.add_(1e-3)  # type: ignore[index,union-attr]
    with pytest.raises(vl.InputError, match="1 of .* frozen tensors differ, 'layer1.0.conv1.weight' first"):
        vl.load_adapter(other, tmp_path / "a.safetensors", prefix="backbone.body")
    assert vl.adapter_names(other) == []


@pytest.mark.parametrize("prefix", ["backbone.bod", "head", "nothing", "backbone.body."])
def test_a_prefix_that_the_file_lacks_is_refused(prefix: str, tmp_path: Path) -> None:
    whole = Around(backbone("test_resnet"))
    vl.attach(whole, vl.LoRAConfig(rank=2, targets=["backbone.*"], unfreeze=[]))
    vl.save_adapter(whole, tmp_path / "a.safetensors")
    alone = backbone("test_resnet")
    with pytest.raises(vl.InputError, match=f"has nothing for a module '{prefix}'; what it has lies in backbone"):
        vl.load_adapter(alone, tmp_path / "a.safetensors", prefix=prefix)
    assert vl.adapter_names(alone) == []
