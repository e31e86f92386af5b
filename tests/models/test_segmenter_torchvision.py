"""torchvision's segmenters for other classes: logits alone, and what pretrained weights know is kept by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from helpers.tiny_detectors import randomise, state, write
from helpers.tiny_segmenters import CLASSES, create, images, loss, run, settle
from visionlora.models.torchvision_segmenters import names

LRASPP, DEEPLAB = "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"
VOC = torchvision.models.segmentation.LRASPP_MobileNet_V3_Large_Weights.DEFAULT.meta["categories"]
KNOWN = ["Person", "lorry", "background"]
"""Two classes whose names the weights know, however written."""


def torchvisions(name: str, outputs: int) -> nn.Module:
    """As its hub's weights are: with the auxiliary head, if it has one."""
    aux = {} if name == LRASPP else {"aux_loss": True}
    model: nn.Module = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=outputs, **aux
    )
    randomise(model)
    return model


def is_row_of(tensor: Tensor, row: Tensor) -> bool:
    return any(torch.equal(other, row) for other in tensor)


def test_the_segmenters_are_torchvisions() -> None:
    assert set(names()) == {
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3_resnet50",
        "deeplabv3_resnet101",
        "fcn_resnet50",
        "fcn_resnet101",
        "lraspp_mobilenet_v3_large",
    }


@pytest.mark.parametrize("name", names())
def test_a_segmenter_gives_logits_at_the_images_size_and_trains_everywhere(name: str) -> None:
    segmenter = create(name)
    assert segmenter.unused == []
    assert segmenter.data_config == {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    pictures = images(2, 65, 97)
    found = loss(segmenter.model, pictures)
    found.backward()
    for path, parameter in segmenter.model.named_parameters():
        assert parameter.requires_grad and parameter.grad is not None, path
    settle(segmenter.model, pictures)
    logits = run(segmenter.model, pictures)
    assert logits.shape == (2, 3, 65, 97)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", [name for name in names() if "101" not in name])  # those are the 50s, but longer
def test_the_state_dict_is_torchvisions_own(name: str) -> None:
    segmenter = create(name)
    plain = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(CLASSES))
    settle(segmenter.model, images(2, 48, 64))
    plain.load_state_dict(segmenter.model.state_dict(), strict=True)
    with torch.no_grad():
        expected = plain.eval()(images(2, 33, 65))["out"]
    assert torch.equal(run(segmenter.model, images(2, 33, 65)), expected)


@pytest.mark.parametrize("name", [LRASPP, DEEPLAB, "fcn_resnet50"])
def test_the_head_is_the_layer_of_the_classes_and_starts_small(name: str) -> None:
    segmenter = create(name)
    layers = [segmenter.model.get_submodule(path) for path in segmenter.head]
    assert len(layers) == (2 if name == LRASPP else 1)
    for layer in layers:
        assert isinstance(layer, nn.Conv2d) and layer.out_channels == len(CLASSES)
        assert layer.bias is not None and not layer.bias.any()
        assert 0.4 < layer.weight.std() * layer.in_channels**0.5 < 0.8
    assert len(segmenter.head) == sum(
        isinstance(m, nn.Conv2d) and m.out_channels == len(CLASSES) for m in segmenter.model.modules()
    )


@pytest.mark.parametrize("name", [LRASPP, DEEPLAB, "fcn_resnet50"])
def test_a_file_of_the_pretrained_weights_keeps_what_it_knows_by_name(name: str, tmp_path: Path) -> None:
    plain = torchvisions(name, len(VOC))
    path = write(state(plain), tmp_path / "w.safetensors")
    segmenter = create(name, classes=KNOWN, pretrained=True, checkpoint=path)
    expected, found = plain.state_dict(), segmenter.model.state_dict()
    assert segmenter.head
    for key, value in found.items():
        if key.rpartition(".")[0] not in segmenter.head:
            assert torch.equal(value, expected[key]), key
        else:
            assert torch.equal(value[0], expected[key][VOC.index("person")]), key
            assert torch.equal(value[2], expected[key][VOC.index("__background__")]), key
            assert not is_row_of(expected[key], value[1]), key


def test_weights_from_the_hub_are_taken_like_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensors = state(torchvisions(DEEPLAB, len(VOC)))
    asked = []

    def fetch(self: WeightsEnum, **_options: Any) -> dict[str, Tensor]:
        asked.append(self)
        return dict(tensors)

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    torch.manual_seed(0)
    fetched = create(DEEPLAB, classes=KNOWN, pretrained=True)
    assert asked == [torchvision.models.segmentation.DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT]
    torch.manual_seed(0)
    read = create(DEEPLAB, classes=KNOWN, checkpoint=write(tensors, tmp_path / "w.safetensors"))
    assert fetched.head == read.head
    assert all(
        torch.equal(a, b) for a, b in zip(state(fetched.model).values(), state(read.model).values(), strict=True)
    )


@pytest.mark.parametrize("name", [LRASPP, DEEPLAB])
def test_all_classes_of_the_weights_in_another_order_need_no_new_head(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torchvisions(name, len(VOC))
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda _self, **_options: state(plain))
    order = list(reversed(range(len(VOC))))
    segmenter = create(name, classes=[VOC[index].strip("_") for index in order], pretrained=True)
    assert segmenter.head == []
    with torch.no_grad():
        expected = plain.eval()(images(1, 33, 65))["out"][:, order]
    assert torch.allclose(run(segmenter.model, images(1, 33, 65)), expected, atol=1e-5)


def test_as_many_other_classes_as_the_hubs_weights_have_get_a_new_head(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = state(torchvisions(LRASPP, len(VOC)))
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda _self, **_options: dict(tensors))
    segmenter = create(LRASPP, classes=[f"class {number}" for number in VOC], pretrained=True)
    assert len(segmenter.head) == 2
    for path in segmenter.head:
        assert not torch.equal(segmenter.model.state_dict()[f"{path}.weight"], tensors[f"{path}.weight"])


@pytest.mark.parametrize("name", [LRASPP, DEEPLAB])
def test_a_file_with_as_many_outputs_is_taken_as_made_for_the_classes(name: str, tmp_path: Path) -> None:
    plain = torchvisions(name, len(CLASSES))
    segmenter = create(name, checkpoint=write(state(plain), tmp_path / "w.safetensors"))
    assert segmenter.head == []
    with torch.no_grad():
        expected = plain.eval()(images(1, 33, 65))["out"]
    assert torch.equal(run(segmenter.model, images(1, 33, 65)), expected)


@pytest.mark.parametrize("outputs", [2, 30])
def test_a_file_for_other_classes_gets_a_new_head(outputs: int, tmp_path: Path) -> None:
    plain = torchvisions(LRASPP, outputs)
    segmenter = create(LRASPP, classes=KNOWN, checkpoint=write(state(plain), tmp_path / "w.safetensors"))
    assert len(segmenter.head) == 2
    found, heads = segmenter.model.state_dict(), [f"{path}.weight" for path in segmenter.head]
    assert not any(is_row_of(plain.state_dict()[key], row) for key in heads for row in found[key])
    assert torch.equal(found["classifier.cbr.0.weight"], plain.state_dict()["classifier.cbr.0.weight"])


def test_there_is_no_auxiliary_head() -> None:
    for name in (DEEPLAB, "fcn_resnet50"):
        assert {key.split(".")[0] for key in create(name).model.state_dict()} == {"backbone", "classifier"}


def test_entries_of_the_data_config_can_be_replaced() -> None:
    config = create(LRASPP, data_config={"std": (1.0, 1.0, 1.0)}).data_config
    assert config == {"mean": (0.485, 0.456, 0.406), "std": (1.0, 1.0, 1.0)}
