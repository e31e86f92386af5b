"""torchvision's detectors: each builds, trains and detects; what their weights know of a class is kept."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from helpers.tiny_detectors import (
    accept_any_score,
    create,
    detect,
    images,
    look_at_few_boxes,
    losses,
    no_objects,
    randomise,
    state,
    targets,
    write,
)
from visionlora.errors import InputError
from visionlora.models import torchvision_detectors
from visionlora.models.detector import create_detector

NAMES = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": ["roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"],
    "fasterrcnn_mobilenet_v3_large_fpn": ["roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"],
    "fasterrcnn_resnet50_fpn": ["roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"],
    "fasterrcnn_resnet50_fpn_v2": ["roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"],
    "fcos_resnet50_fpn": ["head.classification_head.cls_logits"],
    "maskrcnn_resnet50_fpn": [
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_predictor.mask_fcn_logits",
    ],
    "maskrcnn_resnet50_fpn_v2": [
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_predictor.mask_fcn_logits",
    ],
    "retinanet_resnet50_fpn": ["head.classification_head.cls_logits"],
    "retinanet_resnet50_fpn_v2": ["head.classification_head.cls_logits"],
    "ssd300_vgg16": [f"head.classification_head.module_list.{i}" for i in range(6)],
    "ssdlite320_mobilenet_v3_large": [f"head.classification_head.module_list.{i}.1" for i in range(6)],
}
"""Every name -> its predictors."""

CLASSES = ["lorry", "roof sign"]
COCO = list(torchvision.models.get_model_weights("fcos_resnet50_fpn").DEFAULT.meta["categories"][1:])
COCO_LABELS = {name: label for label, name in enumerate(COCO, 1) if name != "N/A"}


def test_every_detector_of_torchvision_is_known() -> None:
    assert sorted(torchvision_detectors.names()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_trains_everywhere_and_detects_inside_the_images(name: str) -> None:
    detector = create(name, CLASSES)
    assert detector.head == NAMES[name] and detector.unused == []
    assert detector.masks == name.startswith("mask")
    assert all(parameter.requires_grad for parameter in detector.model.parameters())
    assert all(module.training for module in detector.model.modules())
    look_at_few_boxes(detector.model)
    pictures = images((48, 64), (70, 45))[: 1 if name == "ssd300_vgg16" else 2]  # one costs it seconds
    found = losses(detector, pictures)
    assert all(torch.isfinite(loss) for loss in found.values())
    sum(found.values()).backward()  # type: ignore[union-attr]
    for path, parameter in detector.model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), path
    accept_any_score(detector.model)
    for picture, output in zip(pictures, detect(detector, pictures), strict=True):
        height, width = picture.shape[1:]
        assert len(output["boxes"]) > 0
        assert (output["boxes"] >= 0).all()
        assert (output["boxes"][:, 2:] <= torch.tensor([width, height]) + 1e-3).all()
        assert set(output["labels"].tolist()) <= {0, 1}
        if detector.masks:
            assert output["masks"].shape == (len(output["boxes"]), 1, height, width)


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
def test_images_without_objects_are_fine(name: str) -> None:
    detector = create(name, CLASSES)
    pictures = images((48, 64), (64, 64))
    found = detector.model(pictures, detector.to_model(no_objects(pictures)))
    assert all(torch.isfinite(loss) for loss in found.values())


def fake_hub(monkeypatch: pytest.MonkeyPatch, name: str) -> nn.Module:
    """Put weights for COCO where the hub's would come from; the model that they are of."""
    torch.manual_seed(5)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    randomise(model)
    weights = torchvision.models.get_model_weights(name)

    def get_state_dict(self: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return state(model)

    monkeypatch.setattr(weights, "get_state_dict", get_state_dict)
    return model


def class_scores(model: nn.Module, features: Tensor) -> Tensor:
    """(places, outputs): what the head says of each class, without background's share."""
    if hasattr(model, "roi_heads"):
        scores, boxes = model.roi_heads.box_predictor(features.mean((2, 3)).repeat(1, 4))  # type: ignore[union-attr, operator]
        outputs = scores.shape[1]
        return torch.cat([scores, boxes.view(-1, outputs, 4).transpose(1, 2).reshape(-1, outputs)])
    head = model.head.classification_head  # type: ignore[union-attr]
    if hasattr(head, "module_list"):
        maps = [torch.cat([features] * 6, 1)[:, : channels_in(block)] for block in head.module_list]  # type: ignore[union-attr]
        return head(maps)[0]  # type: ignore[operator]
    return head([features])[0]  # type: ignore[operator]


def channels_in(block: nn.Module) -> int:
    return next(module for module in block.modules() if isinstance(module, nn.Conv2d)).in_channels


SOME = ["Traffic_Light", "forklift", "car"]
KEEPING = [
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
]


@pytest.mark.parametrize("name", KEEPING)
def test_what_the_weights_know_of_a_class_is_kept_where_names_match(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fake_hub(monkeypatch, name).eval()
    detector = create(name, SOME, pretrained=True)
    model = detector.model.eval()
    assert detector.head == NAMES[name]
    rest = {key for key in state(whole) if key.rpartition(".")[0] not in detector.head}
    assert all(torch.equal(model.state_dict()[key], whole.state_dict()[key]) for key in rest)
    features = torch.randn(1, 256, 3, 4)
    with torch.no_grad():
        new, old = class_scores(model, features), class_scores(whole, features)
        light, forklift, car = detector.model_labels
        assert torch.allclose(new[:, light], old[:, COCO_LABELS["traffic light"]], atol=1e-5)
        assert torch.allclose(new[:, car], old[:, COCO_LABELS["car"]], atol=1e-5)
        assert not torch.isclose(new[:, forklift, None], old, atol=1e-6).all(dim=0).any()
        if light == 1:  # there is a background
            assert torch.allclose(new[:, 0], old[:, 0], atol=1e-5)
        if detector.masks:
            masks = model.roi_heads.mask_predictor(features), whole.roi_heads.mask_predictor(features)  # type: ignore[union-attr, operator]
            assert torch.allclose(masks[0][:, light], masks[1][:, COCO_LABELS["traffic light"]], atol=1e-5)
            assert torch.allclose(masks[0][:, car], masks[1][:, COCO_LABELS["car"]], atol=1e-5)


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"])
def test_a_new_class_of_a_focal_loss_starts_at_the_prior(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, name)
    detector = create(name, SOME, pretrained=True)
    bias = detector.model.get_submodule(detector.head[0]).bias.view(-1, 3)  # type: ignore[union-attr, operator]
    weight = detector.model.get_submodule(detector.head[0]).weight  # type: ignore[union-attr]
    assert torch.allclose(bias[:, 1], torch.tensor(-math.log(99)))
    assert not torch.isclose(bias[:, [0, 2]], torch.tensor(-math.log(99))).any()
    assert weight.view(-1, 3, *weight.shape[1:])[:, 1].std().item() == pytest.approx(0.01, rel=0.1)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn"])
def test_with_exactly_the_weights_classes_nothing_is_new(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fake_hub(monkeypatch, name)
    classes = sorted(COCO_LABELS)
    detector = create(name, classes, pretrained=True)
    assert detector.head == []
    assert detector.model_labels == tuple(COCO_LABELS[name] for name in classes)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in detector.model.state_dict().items())
    given = [{"labels": torch.arange(80)}]
    (there,) = detector.to_model(given)
    assert [COCO[label - 1] for label in there["labels"].tolist()] == classes
    boxes = torch.arange(91 * 4.0).view(91, 4)
    (back,) = detector.to_classes([{"labels": torch.arange(91), "boxes": boxes, "scores": torch.arange(91.0)}])
    assert [classes[label] for label in back["labels"].tolist()] == [name for name in COCO if name != "N/A"]
    assert back["scores"].tolist() == [label for label, name in enumerate(COCO, 1) if name != "N/A"]
    assert torch.equal(back["boxes"], boxes[back["scores"].long()])


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_the_model_computes_what_torchvisions_does_with_these_weights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fake_hub(monkeypatch, name)
    with torch.no_grad():  # an eps of 1e-5 in the place of 0 would then change the maps by half
        for module in whole.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.mul_(1e-4)  # type: ignore[union-attr]
                module.weight.mul_(1e-2)
    theirs = torchvision.models.get_model(name, weights="DEFAULT", min_size=64, max_size=64).eval()
    ours = create(name, sorted(COCO_LABELS), pretrained=True).model.eval()
    picture = images((48, 64))[0]
    with torch.no_grad():
        expected, found = theirs.backbone(picture[None]), ours.backbone(picture[None])  # type: ignore[operator]
        assert max((found[key] - expected[key]).abs().max() for key in expected) < 1e-3
        if name.startswith("faster"):
            whole.eval()
            assert torch.equal(theirs([picture])[0]["boxes"], ours([picture])[0]["boxes"])


def test_a_local_file_is_loaded_whatever_its_head_was_made_for(tmp_path: Path) -> None:
    name = "ssdlite320_mobilenet_v3_large"
    own = create(name, CLASSES)
    randomise(own.model)
    path = write(state(own.model), tmp_path / "w.safetensors")

    same = create(name, CLASSES, pretrained=True, checkpoint=path)
    assert same.head == [], "as many outputs: taken as made for these classes"
    assert all(torch.equal(value, own.model.state_dict()[key]) for key, value in same.model.state_dict().items())

    other = create(name, ["a", "b", "c"], checkpoint=path)
    assert other.head == NAMES[name]
    for key, value in other.model.state_dict().items():
        assert key.rpartition(".")[0] in other.head or torch.equal(value, own.model.state_dict()[key]), key

    coco = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    path = write(state(coco), tmp_path / "coco.safetensors")
    kept = create(name, ["car", "forklift"], checkpoint=path)
    assert kept.head == NAMES[name]
    weight = kept.model.get_submodule(kept.head[0]).weight.view(6, 3, -1)  # type: ignore[union-attr, operator]
    assert torch.equal(weight[:, 1], coco.get_submodule(kept.head[0]).weight.view(6, 91, -1)[:, 3])  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: {k: v for k, v in tensors.items() if "extra.0.0.0" not in k}, "1 missing (backbone.extra.0.0"),
        (lambda tensors: {**tensors, "more": torch.zeros(2)}, "1 unknown (more)"),
        (lambda tensors: {k: v for k, v in tensors.items() if "classification_head" not in k}, "missing (head.class"),
        (lambda tensors: {k: v[..., None] for k, v in tensors.items()}, "of another shape"),
        (lambda tensors: {"conv1.weight": torch.zeros(2, 2)}, "not the weights of ssdlite320_mobilenet_v3_large"),
    ],
)
def test_a_file_of_another_model_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    name = "ssdlite320_mobilenet_v3_large"
    path = write(change(state(create(name, CLASSES).model)), tmp_path / "w.safetensors")
    with pytest.raises(InputError) as caught:
        create(name, CLASSES, checkpoint=path)
    assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 569),
        ("fasterrcnn_mobilenet_v3_large_fpn", 1333),
        ("ssdlite320_mobilenet_v3_large", 569),
    ],
)
def test_without_a_size_a_frame_of_16_9_has_the_scale_of_the_training(name: str, size: int) -> None:
    detector = create_detector(name, CLASSES, pretrained=False)
    assert detector.data_config["size"] == size
    frame = torch.zeros(3, round(size * 9 / 16), size)
    scaled, _ = detector.model.transform([frame])  # type: ignore[operator]
    fixed = detector.model.transform.fixed_size  # type: ignore[union-attr]
    assert scaled.image_sizes == [fixed or tuple(frame.shape[1:])]


def test_a_hub_that_cannot_be_reached_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("Name or service not known\nlong story")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(InputError) as caught:
        create_detector("ssdlite320_mobilenet_v3_large", CLASSES)
    assert "could not be fetched (OSError: Name or service not known)" in str(caught.value)
    assert "model.checkpoint" in str(caught.value) and "long story" not in str(caught.value)


def test_targets_are_told_apart_by_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping that is one off would train background as a class."""
    detector = create("fasterrcnn_mobilenet_v3_large_320_fpn", CLASSES)
    given = targets(detector, images((48, 64)))
    assert detector.to_model(given)[0]["labels"].tolist() == [1, 2]
    assert given[0]["labels"].tolist() == [0, 1], "the targets given stay as they are"
    assert torch.equal(detector.to_classes(detector.to_model(given))[0]["labels"], given[0]["labels"])
