"""BatchNorm in detectors that have an adapter: frozen whatever train() says, and folded without any change."""

from typing import Any

import pytest
import torch
import torchvision
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import visionlora as vl
from helpers.tiny_detectors import create, images, look_at_few_boxes, settle, targets
from visionlora.models.detector import Detector

CLASSES = ["lorry", "roof sign"]
CASES: list[tuple[str, str | None, type[nn.Module]]] = [
    ("retinanet", "test_efficientnet", BatchNormAct2d),
    ("mask_rcnn", "test_resnet", nn.BatchNorm2d),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", None, FrozenBatchNorm2d),
    ("ssdlite320_mobilenet_v3_large", None, nn.BatchNorm2d),
]
"""A detector, its backbone, and the class of BatchNorm in it."""


def made(name: str, backbone: str | None, kind: type[nn.Module]) -> Detector:
    """With statistics of its own, in double precision, and with an adapter that changes every layer."""
    detector = create(name, CLASSES, **({"backbone": backbone} if backbone else {}))
    model = detector.model
    look_at_few_boxes(model)
    settle(model, images((48, 64), (64, 50)))
    if kind is FrozenBatchNorm2d:
        freeze_as_torchvision(model)
    model.double()
    vl.attach(model, vl.LoRAConfig(rank=2, alpha=4, exclude=detector.unused, unfreeze=detector.head))
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith("lora_B"):
                nn.init.normal_(parameter, std=0.01)
        for norm in norms(detector, kind).values():
            norm.weight.clamp_(min=0.5)  # type: ignore[operator, union-attr]  # timm's branches begin with 0
    assert norms(detector, kind)
    return detector


def freeze_as_torchvision(model: nn.Module) -> None:
    """What ``fasterrcnn_...(weights="DEFAULT")`` has in its backbone."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(child.num_features, child.eps)
                frozen.load_state_dict(child.state_dict())
                setattr(parent, name, frozen)


def norms(detector: Detector, kind: type[nn.Module]) -> dict[str, nn.Module]:
    return {
        path: module
        for path, module in detector.model.named_modules()
        if isinstance(module, kind) and path not in detector.unused
    }


def losses_and_gradients(detector: Detector) -> dict[str, Tensor]:
    model = detector.model.train()
    pictures = [picture.double() for picture in images((48, 64), (64, 50))]
    wanted = [{**target, "boxes": target["boxes"].double()} for target in targets(detector, pictures)]
    torch.manual_seed(3)  # an R-CNN draws the proposals that it trains on
    found: dict[str, Tensor] = model(pictures, detector.to_model(wanted))
    trained = {path: parameter for path, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(torch.stack(list(found.values())).sum(), list(trained.values()))
    return {**{name: loss.detach() for name, loss in found.items()}, **dict(zip(trained, gradients, strict=True))}


@pytest.mark.parametrize(("name", "backbone", "kind"), CASES)
def test_batchnorm_stays_frozen_in_training(name: str, backbone: str | None, kind: type[nn.Module]) -> None:
    detector = made(name, backbone, kind)
    model = detector.model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.01)
    pictures = [picture.double() for picture in images((48, 64))]
    wanted = [{**target, "boxes": target["boxes"].double()} for target in targets(detector, pictures)]
    sum(model.train()(pictures, detector.to_model(wanted)).values()).backward()
    optimizer.step()
    assert model.training and not any(module.training for module in norms(detector, kind).values())
    of_norms = [key for key in before if key.rpartition(".")[0] in norms(detector, kind)]
    assert len(of_norms) >= 4 * len(norms(detector, kind))
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in of_norms)
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "backbone", "kind"), CASES)
def test_folding_changes_no_loss_and_no_gradient(name: str, backbone: str | None, kind: type[nn.Module]) -> None:
    detector = made(name, backbone, kind)
    expected = losses_and_gradients(detector)
    folded = vl.fold_batchnorm(detector.model, [images((48, 64))[0].double()])
    assert set(folded) == set(norms(detector, kind))
    found = losses_and_gradients(detector)
    assert found.keys() == expected.keys()
    assert sum(bool(value.any()) for value in expected.values()) > 0.6 * len(expected)
    for key, value in expected.items():
        error = torch.linalg.vector_norm(found[key] - value)
        assert error <= 1e-6 * torch.linalg.vector_norm(value) + 1e-12, key


def test_torchvisions_own_detector_with_pretrained_batchnorm_is_adapted_and_folded() -> None:
    """Not made by ``create_detector``: FrozenBatchNorm2d over a ResNet, and layers that are frozen for good."""
    backbone: Any = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d
    )
    model = torchvision.models.detection.FasterRCNN(backbone, 3, min_size=64, max_size=64, box_score_thresh=0.0)
    model.rpn._post_nms_top_n = {"training": 20, "testing": 20}
    detector = Detector(model, ["roi_heads.box_predictor"], [], CLASSES, (1, 2), False, {})
    model.double()
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=detector.head))
    for path, parameter in model.named_parameters():
        if path.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.01)
    expected = losses_and_gradients(detector)
    folded = vl.fold_batchnorm(model, [images((48, 64))[0].double()])
    assert len(folded) == 20, "all of a ResNet-18's"
    found = losses_and_gradients(detector)
    for key, value in expected.items():
        error = torch.linalg.vector_norm(found[key] - value)
        assert error <= 1e-6 * torch.linalg.vector_norm(value) + 1e-12, key
