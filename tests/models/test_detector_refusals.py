"""What can't be a detector is refused in one line that says what to do."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from helpers.tiny_detectors import state, write
from visionlora.errors import InputError
from visionlora.models.anchors import default_anchors
from visionlora.models.detector import create_detector, detector_names

CLASSES = ["lorry", "roof sign"]


def refusal(name: str, classes: list[str] = CLASSES, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        create_detector(name, classes, **{"pretrained": False, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("fasterrcnn_resnet50_fpnv2", "fasterrcnn_resnet50_fpn_v2"),
        ("RetinaNet", "retinanet"),
        ("masc_rcnn", "mask_rcnn"),
        ("torchvision/ssd300_vgg", "ssd300_vgg16"),
    ],
)
def test_an_unknown_detector_shows_the_nearest(name: str, nearest: str) -> None:
    line = refusal(name)
    assert f"unknown detector '{name}'" in line
    assert f"did you mean '{nearest}'?" in line


@pytest.mark.parametrize("name", ["", "resnet50", "keypointrcnn_resnet50_fpn", "zzz"])
def test_a_name_of_no_detector_is_refused_with_those_there_are(name: str) -> None:
    line = refusal(name)
    assert all(known in line for known in detector_names())


def test_torchvisions_prefix_is_allowed() -> None:
    name = "ssdlite320_mobilenet_v3_large"
    created = create_detector(f"torchvision/{name}", CLASSES, pretrained=False)
    assert created.head == create_detector(name, CLASSES, pretrained=False).head


def test_a_backbone_belongs_to_those_that_have_none() -> None:
    assert "needs a model.backbone" in refusal("retinanet")
    assert "has its own backbone" in refusal("fcos_resnet50_fpn", backbone="resnet18")


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("resnett18", "did you mean 'resnet18'?"),
        ("torchvision/resnet18", "unknown model.backbone"),
        ("resnet18.no_such_tag", "no weights tagged 'no_such_tag'"),
        ("mixer_s32_224", "does not take images of any size"),
        ("cait_xxs24_224", "does not take images of any size"),
        ("crossvit_tiny_240", "strides 12, 17"),
        ("inception_v3", "take a CNN"),
    ],
)
def test_a_backbone_that_gives_no_pyramid_is_refused(backbone: str, words: str) -> None:
    line = refusal("fcos", backbone=backbone)
    assert words in line and backbone in line


def test_a_backbone_without_feature_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = timm.create_model

    def without(*arguments: Any, **options: Any) -> torch.nn.Module:
        model = plain(*arguments, **options)
        monkeypatch.delattr(type(model), "forward_intermediates")
        return model

    monkeypatch.setattr(timm, "create_model", without)
    assert "no feature maps" in refusal("fcos", backbone="test_resnet")


@pytest.mark.parametrize("options", [{"name": "fcos", "backbone": "test_resnet"}, {"name": "fcos_resnet50_fpn"}])
def test_classes_must_be_there_and_differ(options: dict[str, Any]) -> None:
    assert "no classes" in refusal(classes=[], **options)
    assert "class 'car' is there more than once" in refusal(classes=["car", "bus", "car"], **options)


@pytest.mark.parametrize("size", [0, -3, 31])
@pytest.mark.parametrize("options", [{"name": "fcos", "backbone": "test_resnet"}, {"name": "fcos_resnet50_fpn"}])
def test_a_size_of_nothing_is_refused(options: dict[str, Any], size: int) -> None:
    assert f"model.size is {size}" in refusal(size=size, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": ()}, "model.levels"),
        ({"levels": (3, 5)}, "model.levels are 3, 5"),
        ({"levels": (5, 4)}, "consecutive"),
        ({"levels": (0, 1)}, "model.levels are 0, 1"),
        ({"levels": (6, 7)}, "model.levels are 6, 7"),
        ({"levels": (8, 9)}, "model.levels are 8, 9"),
        ({"fpn_channels": 0}, "model.fpn_channels is 0"),
        ({"fpn_channels": 44}, "a multiple of 8"),
        ({"head_convs": 0}, "model.head_convs is 0"),
        ({"head_convs": 5}, "give 1 to 4"),
        ({"anchors": default_anchors((3, 4))}, "anchors for 2 levels"),
    ],
)
def test_a_size_of_the_new_parts_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    assert words in refusal("retinanet", backbone="test_resnet", **options)


def test_levels_finer_than_the_backbones_maps_are_refused() -> None:
    line = refusal("retinanet", backbone="test_convnext", levels=(1, 2, 3))
    assert "model.levels 1, 2, 3" in line and "strides 4, 8, 16, 32" in line


def test_fcos_has_no_anchors() -> None:
    assert "no anchors" in refusal("fcos", backbone="test_resnet", anchors=default_anchors((3, 4, 5, 6)))


@pytest.mark.parametrize("option", [{"levels": (3, 4)}, {"fpn_channels": 64}, {"head_convs": 2}])
def test_torchvisions_own_detectors_have_their_own_layout(option: dict[str, Any]) -> None:
    line = refusal("fcos_resnet50_fpn", **option)
    assert next(iter(option)) in line


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    path = write(state(timm.create_model("test_resnet", num_classes=3)), tmp_path / "w.safetensors")
    line = refusal("fcos", backbone="test_vit", checkpoint=path)
    assert "not the weights of test_vit" in line and str(path) in line
    assert "no such file" in refusal("fcos", backbone="test_vit", checkpoint=tmp_path / "none.pth")


def test_weights_that_cannot_be_fetched_are_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: Any, **_kwargs: Any) -> None:
        raise OSError("Name or service not known\nlong story")

    monkeypatch.setattr(timm, "create_model", offline)
    line = refusal("fcos", backbone="test_vit", pretrained=True)
    assert "could not be fetched" in line and "model.checkpoint" in line and "long story" not in line
