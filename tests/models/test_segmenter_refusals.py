"""What can't be a segmenter is refused in one line that says what to do."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from helpers.tiny_detectors import state, write
from helpers.tiny_segmenters import CLASSES
from visionlora.errors import InputError
from visionlora.models import timm_segmenters
from visionlora.models.segmenter import create_segmenter, segmenter_names
from visionlora.models.timm_features import Body


def refusal(name: str, classes: list[str] = CLASSES, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        create_segmenter(name, classes, **{"pretrained": False, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("u-net", "unet"),
        ("deeplabv3+", "deeplabv3plus"),
        ("SegFormer", "segformer"),
        ("deeplabv3_resnet", "deeplabv3_resnet50"),
        ("torchvision/lraspp_mobilenet_v3", "lraspp_mobilenet_v3_large"),
    ],
)
def test_an_unknown_segmenter_shows_the_nearest(name: str, nearest: str) -> None:
    line = refusal(name)
    assert f"unknown segmenter '{name}'" in line
    assert f"did you mean '{nearest}" in line


@pytest.mark.parametrize("name", ["", "resnet50", "zzz"])
def test_a_name_of_no_segmenter_is_refused_with_those_there_are(name: str) -> None:
    line = refusal(name)
    assert all(known in line for known in segmenter_names())


def test_torchvisions_prefix_is_allowed() -> None:
    name = "lraspp_mobilenet_v3_large"
    created = create_segmenter(f"torchvision/{name}", CLASSES, pretrained=False)
    assert created.head == create_segmenter(name, CLASSES, pretrained=False).head


def test_a_backbone_belongs_to_those_that_have_none() -> None:
    assert "needs a model.backbone, such as tf_efficientnet_lite0" in refusal("unet")
    assert "needs a model.backbone, such as vit_small_patch16_224" in refusal("linear")
    assert "model.backbone=resnet18 can't be used" in refusal("fcn_resnet50", backbone="resnet18")
    assert "model.channels=64 can't be used" in refusal("fcn_resnet50", channels=64)


@pytest.mark.parametrize(
    ("name", "backbone", "words"),
    [
        ("fpn", "resnett18", "did you mean 'resnet18'?"),
        ("fpn", "torchvision/resnet18", "unknown model.backbone"),
        ("fpn", "resnet18.no_such_tag", "no weights tagged 'no_such_tag'"),
        ("unet", "test_vit", "model unet does not fit test_vit, which is a plain transformer"),
        ("unet", "test_vit", "take linear, multilevel"),
        ("linear", "test_resnet", "model linear does not fit test_resnet, which is not a plain transformer"),
        ("multilevel", "test_convnext", "take unet, fpn, deeplabv3plus, upernet, segformer"),
        ("fpn", "crossvit_tiny_240", "have 12, 17"),
        ("linear", "mixer_s32_224", "mixer_s32_224: does not take images of any size"),
        ("segformer", "inception_v3", "inception_v3"),
    ],
)
def test_a_backbone_whose_maps_do_not_fit_is_refused(name: str, backbone: str, words: str) -> None:
    assert words in refusal(name, backbone=backbone)


@pytest.mark.parametrize("strides", [[8, 16, 32], [2, 4]])
def test_maps_of_a_stride_of_4_and_coarser_ones_are_needed(strides: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    body = Body(torch.nn.Identity(), strides, [16] * len(strides), {})
    monkeypatch.setattr(timm_segmenters, "create_body", lambda *_arguments: body)
    line = refusal("fpn", backbone="some_cnn")
    assert f"those of some_cnn have {', '.join(map(str, strides))}" in line


def test_a_backbone_without_feature_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = timm.create_model

    def without(*arguments: Any, **options: Any) -> torch.nn.Module:
        model = plain(*arguments, **options)
        monkeypatch.delattr(type(model), "forward_intermediates")
        return model

    monkeypatch.setattr(timm, "create_model", without)
    assert "no feature maps" in refusal("unet", backbone="test_resnet")


@pytest.mark.parametrize("options", [{"name": "unet", "backbone": "test_resnet"}, {"name": "fcn_resnet50"}])
def test_classes_must_be_there_and_differ(options: dict[str, Any]) -> None:
    assert "no classes" in refusal(classes=[], **options)
    assert "class 'car' is there more than once" in refusal(classes=["car", "bus", "car"], **options)


@pytest.mark.parametrize("channels", [0, -16, 8, 40])
def test_a_width_that_does_not_go_in_groups_is_refused(channels: int) -> None:
    line = refusal("fpn", backbone="test_resnet", channels=channels)
    assert f"model.channels is {channels}; give a multiple of 16" in line


def test_linear_has_no_width() -> None:
    assert "no model.channels" in refusal("linear", backbone="test_vit", channels=64)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = write(state(timm.create_model("test_resnet", num_classes=3)), tmp_path / "w.safetensors")
    line = refusal("linear", backbone="test_vit", checkpoint=path)
    assert "not the weights of test_vit" in line and str(path) in line
    line = refusal("lraspp_mobilenet_v3_large", checkpoint=path)
    assert "not the weights of lraspp_mobilenet_v3_large" in line and str(path) in line
    assert "no such file" in refusal("unet", backbone="test_resnet", checkpoint=tmp_path / "none.pth")


def test_a_backbones_weights_are_no_segmenters(tmp_path: Path) -> None:
    """Nothing but the classes' layer may be missing in a file."""
    model = create_segmenter("lraspp_mobilenet_v3_large", CLASSES, pretrained=False).model
    path = write(state(model.backbone), tmp_path / "w.safetensors")  # type: ignore[arg-type]
    assert "missing" in refusal("lraspp_mobilenet_v3_large", checkpoint=path)


def test_weights_that_cannot_be_fetched_are_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: Any, **_kwargs: Any) -> None:
        raise OSError("Name or service not known\nlong story")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    for options in ({"name": "linear", "backbone": "test_vit"}, {"name": "fcn_resnet50"}):
        line = refusal(**options, pretrained=True)  # type: ignore[arg-type]
        assert "could not be fetched" in line and "model.checkpoint" in line and "long story" not in line
