"""Adapters on segmenters, and the same adapter on a classifier and on a segmenter's backbone."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import visionlora as vl
from helpers.tiny_detectors import state, write
from helpers.tiny_segmenters import CLASSES, create, images, loss, run, settle
from visionlora.models.segmenter import Segmenter

CASES: list[tuple[str, str | None]] = [
    ("unet", "test_efficientnet"),
    ("fpn", "test_resnet"),
    ("deeplabv3plus", "test_convnext"),
    ("upernet", "tf_efficientnet_lite0"),
    ("segformer", "pvt_v2_b0"),
    ("linear", "test_vit"),
    ("multilevel", "test_vit"),
    ("deeplabv3_resnet50", None),
    ("fcn_resnet50", None),
    ("deeplabv3_mobilenet_v3_large", None),
    ("lraspp_mobilenet_v3_large", None),
]
BACKBONES = {"test_efficientnet": "unet", "test_vit": "multilevel", "test_convnext": "upernet"}


def segmenter_of(name: str, backbone: str | None) -> Segmenter:
    """With BatchNorm's statistics."""
    segmenter = create(name, **({"backbone": backbone} if backbone else {}))
    settle(segmenter.model, images(2, 64, 96))
    return segmenter


def perturb(model: nn.Module) -> None:
    """Let every adapter change its layer."""
    for path, parameter in model.named_parameters():
        if path.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.05)


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_an_adapter_starts_at_the_base_trains_and_merges(name: str, backbone: str | None) -> None:
    segmenter = segmenter_of(name, backbone)
    model, pictures = segmenter.model, images(2, 65, 97)
    keys, before = list(model.state_dict()), run(model, pictures)
    vl.attach(model, vl.LoRAConfig(rank=2, targets="all", exclude=segmenter.unused, unfreeze=segmenter.head))
    assert torch.allclose(run(model, pictures), before, atol=1e-6)

    loss(model, pictures).backward()
    for path, parameter in model.named_parameters():
        new = any(path.startswith(f"{head}.") for head in segmenter.head)
        assert parameter.requires_grad == (new or ".lora_" in path), path
        assert (parameter.grad is not None) == parameter.requires_grad, path
    assert any(path.startswith("backbone.") and parameter.requires_grad for path, parameter in model.named_parameters())

    perturb(model)
    adapted = run(model, pictures)
    assert not torch.allclose(adapted, before, rtol=1e-2)
    vl.merge(model)
    assert list(model.state_dict()) == keys
    assert (run(model, pictures) - adapted).abs().max() <= 1e-5 * max(1.0, float(adapted.abs().max()))


def test_a_merged_segmenter_loads_into_torchvisions() -> None:
    name = "deeplabv3_resnet50"
    segmenter = segmenter_of(name, None)
    vl.attach(segmenter.model, vl.LoRAConfig(rank=2, unfreeze=segmenter.head))
    perturb(segmenter.model)
    vl.merge(segmenter.model)
    plain = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(CLASSES))
    plain.load_state_dict(segmenter.model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(plain.eval()(images(1, 33, 65))["out"], run(segmenter.model, images(1, 33, 65)))


@pytest.mark.parametrize(
    ("name", "backbone"), [case for case in CASES if case[1] not in ("test_vit", "test_convnext", "pvt_v2_b0")]
)
def test_frozen_batchnorm_folds_and_nothing_changes(name: str, backbone: str | None) -> None:
    segmenter = segmenter_of(name, backbone)
    # In double precision, for an untrained, perturbed model makes much of the last digit.
    model, pictures = segmenter.model.double(), images(2, 65, 97).double()
    vl.attach(model, vl.LoRAConfig(rank=2, exclude=segmenter.unused, unfreeze=segmenter.head))
    perturb(model)
    before = run(model, pictures)
    folded = vl.fold_batchnorm(model, pictures[:1])
    ran = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and path not in segmenter.unused
    ]
    assert folded and set(folded) <= set(ran)
    assert len(folded) >= len(ran) - 1, set(ran) - set(folded)
    after = run(model, pictures)
    assert torch.allclose(after, before, rtol=1e-6, atol=1e-8 * float(before.abs().max()))
    loss(model, pictures).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def classifier(backbone: str, path: Path) -> nn.Module:
    model: nn.Module = timm.create_model(backbone, num_classes=5)
    write(state(model), path)
    return model


def over(backbone: str, weights: Path) -> Segmenter:
    return create(BACKBONES[backbone], backbone=backbone, checkpoint=weights)


def head_of(model: nn.Module) -> str:
    return str(model.default_cfg["classifier"])  # type: ignore[index]


def features(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval().forward_features(images(1, 160, 160))
    return found


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_classifiers_adapter_loads_into_a_segmenters_backbone(backbone: str, tmp_path: Path) -> None:
    model = classifier(backbone, tmp_path / "w.safetensors")
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=[head_of(model)]))
    perturb(model)
    vl.save_adapter(model, tmp_path / "a.safetensors")

    body: Any = over(backbone, tmp_path / "w.safetensors").model.backbone
    plain = features(body)
    vl.load_adapter(body, tmp_path / "a.safetensors", heads=False)
    assert torch.allclose(features(body), features(model), atol=1e-5)
    assert not torch.allclose(features(body), plain, atol=1e-2)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_adapter_of_a_segmenters_backbone_loads_into_a_classifier(backbone: str, tmp_path: Path) -> None:
    model = classifier(backbone, tmp_path / "w.safetensors")
    body: Any = over(backbone, tmp_path / "w.safetensors").model.backbone
    vl.attach(body, vl.LoRAConfig(rank=2))
    perturb(body)
    vl.save_adapter(body, tmp_path / "a.safetensors")
    plain = features(model)
    vl.load_adapter(model, tmp_path / "a.safetensors")
    assert torch.allclose(features(body), features(model), atol=1e-5)
    assert not torch.allclose(features(model), plain, atol=1e-2)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_classifier_and_segmenter_have_the_same_base(backbone: str, tmp_path: Path) -> None:
    model = classifier(backbone, tmp_path / "w.safetensors")
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=[head_of(model)]))
    vl.save_adapter(model, tmp_path / "classifier.safetensors")
    body: Any = over(backbone, tmp_path / "w.safetensors").model.backbone
    vl.attach(body, vl.LoRAConfig(rank=2))
    vl.save_adapter(body, tmp_path / "segmenter.safetensors")
    there, here = (vl.read_header(tmp_path / f"{name}.safetensors") for name in ("classifier", "segmenter"))
    assert here.base == there.base
    assert here.architecture == there.architecture


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_segmenters_adapter_is_saved_and_loaded_with_its_head(backbone: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    classifier(backbone, weights)
    segmenter = over(backbone, weights)
    vl.attach(segmenter.model, vl.LoRAConfig(rank=2, exclude=segmenter.unused, unfreeze=segmenter.head))
    perturb(segmenter.model)
    vl.save_adapter(segmenter.model, tmp_path / "a.safetensors", classes=segmenter.classes)
    fresh = over(backbone, weights)
    pictures = images(1, 65, 97)
    expected = run(segmenter.model, pictures)
    assert not torch.equal(run(fresh.model, pictures), expected)
    vl.load_adapter(fresh.model, tmp_path / "a.safetensors")
    assert torch.equal(run(fresh.model, pictures), expected)
