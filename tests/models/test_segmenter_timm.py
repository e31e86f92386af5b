"""Segmenters over timm backbones: the backbone stays timm's own, at any size of image."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.tiny_detectors import randomise, state, write
from helpers.tiny_segmenters import CLASSES, create, images, loss, masks, run
from visionlora.models.decoders import DeepLabV3Plus, SegFormer, SemanticFPN, Unet, UperNet
from visionlora.models.timm_segmenters import OVER_PLAIN, OVER_PYRAMIDS

PYRAMIDS = ["test_efficientnet", "test_resnet", "test_convnext", "pvt_v2_b0"]
PLAIN = ["test_vit", "eva02_tiny_patch14_224"]
"""With patches of 16 and 14 pixels."""
PAIRS = [(name, backbone) for name in OVER_PYRAMIDS for backbone in PYRAMIDS]
PAIRS += [(name, backbone) for name in OVER_PLAIN for backbone in PLAIN]
EVERY = [(name, "test_efficientnet") for name in OVER_PYRAMIDS] + [(name, "test_vit") for name in OVER_PLAIN]


@pytest.mark.parametrize(("name", "backbone"), PAIRS)
def test_logits_have_the_images_size_and_every_parameter_a_gradient(name: str, backbone: str) -> None:
    segmenter = create(name, backbone=backbone)
    assert segmenter.head == ["decoder"]
    assert all(module.training for module in segmenter.model.modules())
    picture = images(1, 65, 97)
    logits = segmenter.model(picture)
    assert logits.shape == (1, 3, 65, 97)
    assert torch.isfinite(logits).all()
    F.cross_entropy(logits, masks(picture)).backward()
    for path, parameter in segmenter.model.named_parameters():
        assert (parameter.grad is None) == (path.rpartition(".")[0] in segmenter.unused), path
        assert parameter.requires_grad == (parameter.grad is not None), path


@pytest.mark.parametrize(("name", "backbone"), [*EVERY, ("fpn", "swin_tiny_patch4_window7_224")])
@pytest.mark.parametrize("size", [(1, 1), (33, 130)])
def test_sides_of_any_length_are_fine(name: str, backbone: str, size: tuple[int, int]) -> None:
    logits = run(create(name, backbone=backbone).model, images(2, *size))
    assert logits.shape == (2, 3, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "backbone"), [("fpn", "test_resnet"), ("linear", "eva02_tiny_patch14_224")])
def test_images_are_padded_at_the_right_and_the_bottom_to_whole_cells(name: str, backbone: str) -> None:
    model = create(name, backbone=backbone).model
    step = {"fpn": 32, "linear": 14}[name]
    picture = images(1, 3 * step - 5, 4 * step - 9)
    by_hand = run(model, F.pad(picture, (0, 9, 0, 5)))
    assert torch.equal(run(model, picture), by_hand[..., :-5, :-9])


@pytest.mark.parametrize(("name", "backbone"), [*EVERY, ("unet", "test_convnext")])
def test_training_starts_where_all_classes_are_about_equally_likely(name: str, backbone: str) -> None:
    segmenter = create(name, backbone=backbone, channels=None if name == "linear" else 64)
    logits = segmenter.model(images(2, 64, 96))
    assert 0.05 < logits.std() < 1.5
    assert abs(float(loss(segmenter.model, images(2, 64, 96)).detach()) - math.log(3)) < 0.4


@pytest.mark.parametrize("name", [*OVER_PYRAMIDS, *OVER_PLAIN])
def test_what_is_trained_on_one_image_is_found_there(name: str) -> None:
    """Place and class come through: nothing is flipped, shifted or transposed on the way."""
    plain = name in OVER_PLAIN
    model = create(name, backbone="test_vit" if plain else "test_resnet", channels=None if plain else 32).model
    picture, mask = -0.5 + 0.1 * images(1, 73, 120), torch.zeros(1, 73, 120, dtype=torch.int64)
    for label, (top, left) in enumerate([(0, 80), (32, 16)], start=1):
        mask[:, top : top + 32, left : left + 32] = label
        picture[:, label, top : top + 32, left : left + 32] += 2.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(picture), mask).backward()
        optimizer.step()
    found = run(model, picture).argmax(dim=1)

    def overlap(label: int, there: Tensor) -> float:
        return float(((found == label) & there).sum() / ((found == label) | there).sum())

    for label in (1, 2):
        right = overlap(label, mask == label)
        assert right > 2 * overlap(label, mask == 3 - label), (name, label)
        for dims in ((1,), (2,), (1, 2)):
            assert right > overlap(label, mask.flip(dims) == label) + 0.2, (name, label, dims)


@pytest.mark.parametrize("backbone", [*PYRAMIDS, *PLAIN])
def test_the_backbone_keeps_timms_names(backbone: str) -> None:
    model: Any = create("linear" if backbone in PLAIN else "fpn", backbone=backbone).model
    plain = timm.create_model(backbone, num_classes=0)
    assert model.backbone.state_dict().keys() == plain.state_dict().keys()
    others = [key for key in model.state_dict() if not key.startswith("backbone.")]
    assert others and all(key.startswith("decoder.") for key in others)


@pytest.mark.parametrize(
    ("name", "backbone", "maps"),
    [
        ("unet", "test_efficientnet", [0, 1, 2, 3, 4]),
        ("unet", "test_convnext", [0, 1, 2, 3]),
        ("unet", "dla46_c", [1, 2, 3, 4, 5]),
        ("fpn", "test_efficientnet", [1, 2, 3, 4]),
        ("upernet", "test_convnext", [0, 1, 2, 3]),
        ("segformer", "test_efficientnet", [1, 2, 3, 4]),
        ("deeplabv3plus", "test_efficientnet", [1, 4]),
        ("linear", "test_vit", [5]),
        ("multilevel", "test_vit", [1, 2, 4, 5]),
        ("multilevel", "eva02_tiny_patch14_224", [2, 5, 8, 11]),
    ],
)
def test_a_decoder_takes_the_maps_it_is_made_for(name: str, backbone: str, maps: list[int]) -> None:
    assert create(name, backbone=backbone).model.maps == maps


@pytest.mark.parametrize("name", ["unet", "fpn", "upernet", "segformer", "deeplabv3plus"])
def test_every_map_has_a_say(name: str) -> None:
    """What changes in one map alone changes the logits."""
    model: Any = create(name, backbone="test_efficientnet").model.eval()
    seen: list[list[Tensor]] = []
    model.decoder.register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
    run(model, images(1, 64, 96))
    before = run(model.decoder, seen[0])
    for number in range(len(seen[0])):
        changed = [found * (-1 if number == other else 1) for other, found in enumerate(seen[0])]
        assert not torch.allclose(run(model.decoder, changed), before, atol=1e-4), number  # type: ignore[arg-type]


def test_a_decoder_fits_maps_that_are_not_exact_halves() -> None:
    widths, sizes = [16, 24, 32, 40], [(13, 19), (7, 10), (4, 5), (2, 3)]
    maps = [torch.randn(2, width, *size) for width, size in zip(widths, sizes, strict=True)]
    for decoder in (SemanticFPN(widths, 16, 3), UperNet(widths, 16, 3), SegFormer(widths, 16, 3)):
        assert decoder(maps).shape == (2, 3, 13, 19)
    assert Unet(widths, [4, 8, 16, 32], 16, 3)(maps).shape == (2, 3, 13, 19)
    assert DeepLabV3Plus([16, 40], 16, 3, [1, 2, 3])([maps[0], maps[3]]).shape == (2, 3, 13, 19)


def test_deeplabs_dilation_follows_the_coarsest_stride() -> None:
    model: Any = create("deeplabv3plus", backbone="test_efficientnet").model
    assert [branch[0].dilation[0] for branch in model.decoder.branches] == [1, 3, 6, 9]


@pytest.mark.parametrize("backbone", PLAIN)
def test_linear_is_one_convolution_over_the_last_normed_tokens(backbone: str) -> None:
    model: Any = create("linear", backbone=backbone).model.eval()
    patch = model.backbone.patch_embed.patch_size[0]
    picture = images(1, 5 * patch, 7 * patch)  # neither the size nor the shape that it was made for
    with torch.no_grad():
        tokens = model.backbone.forward_features(picture)[:, model.backbone.num_prefix_tokens :]
        logits = model.decoder.classifier(tokens.transpose(1, 2).unflatten(2, (5, 7)))
        expected = F.interpolate(logits, picture.shape[-2:], mode="bilinear")
    assert torch.allclose(run(model, picture), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "backbone", "unused"),
    [
        ("fpn", "tf_efficientnet_lite0", ["conv_head", "bn2"]),
        ("unet", "test_resnet", []),
        ("linear", "test_vit", []),
    ],
)
def test_layers_that_no_output_depends_on_are_named(name: str, backbone: str, unused: list[str]) -> None:
    assert create(name, backbone=backbone).unused == [f"backbone.{layer}" for layer in unused]


@pytest.mark.parametrize(("name", "backbone"), [("fpn", "test_resnet"), ("multilevel", "test_vit")])
def test_a_local_file_is_the_backbones_whatever_its_head(name: str, backbone: str, tmp_path: Path) -> None:
    classifier = timm.create_model(backbone, num_classes=7)
    randomise(classifier)
    path = write(state(classifier), tmp_path / "w.safetensors")
    body: Any = create(name, backbone=backbone, pretrained=True, checkpoint=path).model.backbone
    assert len(body.state_dict()) == len(classifier.state_dict()) - 2
    assert all(torch.equal(value, classifier.state_dict()[key]) for key, value in body.state_dict().items())


def test_creating_one_leaves_batchnorm_as_it_was() -> None:
    body: Any = create("fpn", backbone="test_resnet").model.backbone
    assert all(not value.any() for key, value in body.state_dict().items() if key.endswith("running_mean"))


def test_the_data_config_is_the_backbones_unless_replaced() -> None:
    segmenter = create("linear", backbone="test_vit")
    assert segmenter.data_config == {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    replaced = create("linear", backbone="test_vit", data_config={"mean": [0.1, 0.2, 0.3], "std": None})
    assert replaced.data_config == {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}


@pytest.mark.parametrize("name", [*OVER_PYRAMIDS, "multilevel"])
def test_the_decoder_has_the_width_asked_for(name: str) -> None:
    backbone = "test_vit" if name == "multilevel" else "test_convnext"
    for channels in (16, 48):
        model: Any = create(name, backbone=backbone, channels=channels).model
        assert model.decoder.classifier.in_channels == channels
        assert model.decoder.classifier.out_channels == len(CLASSES)
    assert create(name, backbone=backbone, channels=None).model.decoder.classifier.in_channels == 64  # type: ignore[union-attr]


def test_unets_width_goes_with_the_stride() -> None:
    model: Any = create("unet", backbone="test_efficientnet", channels=32).model
    widths = [block[1][0].out_channels for block in model.decoder.blocks]
    assert widths == [16, 32, 64, 128], "at strides of 2, 4, 8 and 16"
