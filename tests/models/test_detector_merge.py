"""Merged, saved and loaded detectors detect what the adapted ones do."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.tiny_detectors import accept_any_score, create, images, look_at_few_boxes, settle, state
from visionlora.models.detector import Detector

CLASSES = ["lorry", "roof sign"]
OVER_TIMM = [
    (name, backbone)
    for name in ("retinanet", "fcos", "faster_rcnn", "mask_rcnn")
    for backbone in ("test_efficientnet", "test_vit")
]
TORCHVISIONS = [
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
]
CASES = [*OVER_TIMM, *((name, None) for name in TORCHVISIONS)]
PICTURES = ((48, 64), (61, 45))
"""Height and width: not alike, and no multiples of 32."""


def lively(name: str, backbone: str | None) -> Detector:
    """Untrained, with scores that are far apart: what is cut off by rank must not hang on the last digit."""
    detector = create(name, CLASSES, **({"backbone": backbone} if backbone else {}))
    accept_any_score(detector.model)
    look_at_few_boxes(detector.model)
    if hasattr(detector.model, "rpn"):
        detector.model.rpn.score_thresh = 0.0  # type: ignore[union-attr, assignment]
        detector.model.roi_heads.detections_per_img = 10  # type: ignore[union-attr, assignment]
    settle(detector.model, images(*PICTURES))
    for path, parameter in detector.model.named_parameters():
        if path.endswith("weight") and any(
            word in path for word in ("cls_logits", "cls_score", "classification_head.m")
        ):
            nn.init.normal_(parameter, std=2 / parameter[0].numel() ** 0.5)
    return detector


def adapt(detector: Detector) -> None:
    """An adapter that changes every layer, and a head that has trained."""
    vl.attach(detector.model, vl.LoRAConfig(rank=2, alpha=4, exclude=detector.unused, unfreeze=detector.head))
    with torch.no_grad():
        for path, parameter in detector.model.named_parameters():
            if path.endswith("lora_B"):
                nn.init.normal_(parameter, std=0.005)
            elif parameter.requires_grad and ".lora_" not in path:
                parameter += 0.01 * torch.randn_like(parameter)


def run(model: nn.Module) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        dtype = next(model.parameters()).dtype
        found: list[dict[str, Tensor]] = model.eval()([picture.to(dtype) for picture in images(*PICTURES)])
    return found


def assert_same_sets(mine: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> None:
    """The same detections of each image in any order: within 0.01 pixels, 1e-5 of the score and 1e-4 of each mask."""
    for one, other in zip(mine, theirs, strict=True):
        assert one.keys() == other.keys() and len(one["boxes"]) == len(other["boxes"]) > 0
        far = torch.cdist(one["boxes"], other["boxes"], p=float("inf")) > 0.01
        far |= (one["scores"][:, None] - other["scores"]).abs() > 1e-5
        far |= one["labels"][:, None] != other["labels"]
        if "masks" in one:
            far |= torch.cdist(one["masks"].flatten(1), other["masks"].flatten(1), p=float("inf")) > 1e-4
        assert (~far).any(dim=1).all() and (~far).any(dim=0).all()


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_a_merged_detector_finds_what_the_adapted_one_finds(name: str, backbone: str | None, tmp_path: Path) -> None:
    detector = lively(name, backbone)
    model, base = detector.model, copy.deepcopy(detector.model)
    plain = run(model)
    adapt(detector)
    adapted = run(model)
    with pytest.raises(AssertionError):
        assert_same_sets(adapted, plain)
    vl.save_adapter(model, tmp_path / "a.safetensors", classes=CLASSES)

    vl.merge(model)
    assert list(model.state_dict()) == list(base.state_dict())
    assert all(type(mine) is type(theirs) for mine, theirs in zip(model.modules(), base.modules(), strict=True))
    assert_same_sets(run(model), adapted)

    anew = copy.deepcopy(base)
    vl.load_adapter(anew, tmp_path / "a.safetensors")
    assert_same_sets(run(anew), adapted)
    vl.merge(anew)
    assert_same_sets(run(anew), adapted)

    base.load_state_dict(state(model), strict=True)
    assert_same_sets(run(base), adapted)


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_a_detector_with_folded_batchnorm_finds_the_same(name: str, backbone: str | None) -> None:
    detector = lively(name, backbone)
    detector.model.double()  # an untrained, perturbed model makes much of the last digit
    adapt(detector)
    adapted = run(detector.model)
    folded = vl.fold_batchnorm(detector.model, [images(PICTURES[0])[0].double()])
    norms = {
        path
        for path, module in detector.model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and path not in detector.unused
    }
    assert set(folded) == norms
    assert_same_sets(run(detector.model), adapted)
    vl.merge(detector.model)
    assert_same_sets(run(detector.model), adapted)
