"""Adapters on detectors, and the same adapter on a classifier and on a detector's backbone."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.tiny_detectors import accept_any_score, create, images, look_at_few_boxes, losses, settle, state, write
from visionlora.models.detector import Detector

CLASSES = ["lorry", "roof sign"]
BACKBONES = ["test_efficientnet", "test_vit", "test_convnext"]


def perturb(model: nn.Module) -> None:
    """Let every adapter change its layer."""
    for path, parameter in model.named_parameters():
        if path.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.05)


def run(model: nn.Module, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        outputs: list[dict[str, Tensor]] = model.eval()(pictures)
    return outputs


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("fcos", "tf_efficientnet_lite0"),
        ("retinanet", "test_vit"),
        ("mask_rcnn", "test_resnet"),
        ("ssdlite320_mobilenet_v3_large", None),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", None),
    ],
)
def test_an_adapter_starts_at_the_base_trains_and_merges(name: str, backbone: str | None) -> None:
    options: dict[str, Any] = {"backbone": backbone, "levels": (3, 4, 5)} if backbone else {}
    detector = create(name, CLASSES, **options)
    model, pictures = detector.model, images((48, 64), (64, 64))
    accept_any_score(model)
    look_at_few_boxes(model)
    settle(model, pictures)
    keys, before = set(model.state_dict()), run(model, pictures)
    vl.attach(model, vl.LoRAConfig(rank=2, exclude=detector.unused, unfreeze=detector.head))
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(run(model, pictures), before, strict=True))

    sum(losses(detector, pictures).values()).backward()  # type: ignore[union-attr]
    for path, parameter in model.named_parameters():
        new = any(path.startswith(f"{head}.") for head in detector.head)
        assert parameter.requires_grad == (new or ".lora_" in path), path
        assert (parameter.grad is not None) == parameter.requires_grad, path

    perturb(model)
    adapted = run(model, pictures)
    assert any(not torch.equal(a["scores"], b["scores"]) for a, b in zip(adapted, before, strict=True))
    vl.merge(model)
    assert set(model.state_dict()) == keys
    for merged, expected in zip(run(model, pictures), adapted, strict=True):
        assert merged.keys() == expected.keys()
        assert all(torch.allclose(merged[key], expected[key], atol=1e-4) for key in expected)


def classifier(backbone: str, path: Path) -> nn.Module:
    model = timm.create_model(backbone, num_classes=5)
    write(state(model), path)
    return model


def over(backbone: str, weights: Path) -> Detector:
    return create("fcos", CLASSES, backbone=backbone, checkpoint=weights)


def head_of(model: nn.Module) -> str:
    return str(model.default_cfg["classifier"])  # type: ignore[index]


def features(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval().forward_features(images((160, 160))[0][None])
    return found


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_classifiers_adapter_loads_into_a_detectors_backbone(backbone: str, tmp_path: Path) -> None:
    model = classifier(backbone, tmp_path / "w.safetensors")
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=[head_of(model)]))
    perturb(model)
    vl.save_adapter(model, tmp_path / "a.safetensors")

    body = over(backbone, tmp_path / "w.safetensors").model.backbone.body  # type: ignore[union-attr]
    plain = features(body)
    assert isinstance(body, nn.Module)
    vl.load_adapter(body, tmp_path / "a.safetensors", heads=False)
    assert torch.allclose(features(body), features(model), atol=1e-5)
    assert not torch.allclose(features(body), plain, atol=1e-2)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_adapter_of_a_detectors_backbone_loads_into_a_classifier(backbone: str, tmp_path: Path) -> None:
    model = classifier(backbone, tmp_path / "w.safetensors")
    body = over(backbone, tmp_path / "w.safetensors").model.backbone.body  # type: ignore[union-attr]
    assert isinstance(body, nn.Module)
    vl.attach(body, vl.LoRAConfig(rank=2))
    perturb(body)
    vl.save_adapter(body, tmp_path / "a.safetensors")
    vl.load_adapter(model, tmp_path / "a.safetensors")
    assert torch.allclose(features(body), features(model), atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_classifier_and_detector_have_the_same_base(backbone: str, tmp_path: Path) -> None:
    model = classifier(backbone, tmp_path / "w.safetensors")
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=[head_of(model)]))
    vl.save_adapter(model, tmp_path / "classifier.safetensors")
    body = over(backbone, tmp_path / "w.safetensors").model.backbone.body  # type: ignore[union-attr]
    assert isinstance(body, nn.Module)
    vl.attach(body, vl.LoRAConfig(rank=2))
    vl.save_adapter(body, tmp_path / "detector.safetensors")
    there, here = (vl.read_header(tmp_path / f"{name}.safetensors") for name in ("classifier", "detector"))
    assert here.base == there.base
    assert here.architecture == there.architecture


def test_a_detectors_adapter_is_saved_and_loaded_with_its_head(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    classifier("test_resnet", weights)
    detector = over("test_resnet", weights)
    vl.attach(detector.model, vl.LoRAConfig(rank=2, unfreeze=detector.head))
    perturb(detector.model)
    vl.save_adapter(detector.model, tmp_path / "a.safetensors", classes=detector.classes)
    fresh = over("test_resnet", weights)
    vl.load_adapter(fresh.model, tmp_path / "a.safetensors")
    pictures = images((48, 64))
    for model in (detector.model, fresh.model):
        accept_any_score(model)
    expected, found = run(detector.model, pictures)[0], run(fresh.model, pictures)[0]
    assert all(torch.equal(found[key], expected[key]) for key in expected)
