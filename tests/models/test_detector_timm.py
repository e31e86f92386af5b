"""Detectors over timm backbones: the backbone stays timm's own, at any size of image."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
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
from visionlora.models.anchors import Anchors
from visionlora.models.detector import create_detector

CLASSES = ["lorry", "roof sign", "trolley"]
BACKBONES = {
    "test_efficientnet": 4,
    "test_resnet": 5,
    "test_convnext": 2,
    "test_vit": 2,
    "tf_efficientnet_lite0": 4,
    "swin_tiny_patch4_window7_224": 2,
    "eva02_tiny_patch14_224": 2,
}
"""CNNs, a transformer with a pyramid of its own, and plain ones with patches of 16 and 14 pixels."""
DETECTORS = ["faster_rcnn", "mask_rcnn", "retinanet", "fcos"]


def backbone_of(detector: Any) -> Any:
    return detector.model.backbone


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
def test_a_detector_trains_everywhere_and_detects_inside_the_images(name: str, backbone: str) -> None:
    detector = create(name, CLASSES, backbone=backbone)
    assert detector.masks == (name == "mask_rcnn")
    assert detector.head == ["backbone.fpn", *(["rpn", "roi_heads"] if name.endswith("rcnn") else ["head"])]
    assert all(module.training for module in detector.model.modules())
    look_at_few_boxes(detector.model)
    pictures = images((48, 64), (70, 45))
    found = losses(detector, pictures)
    assert all(torch.isfinite(loss) for loss in found.values())
    sum(found.values()).backward()  # type: ignore[union-attr]
    for path, parameter in detector.model.named_parameters():
        assert (parameter.grad is None) == (path.rpartition(".")[0] in detector.unused), path
    accept_any_score(detector.model)
    for picture, output in zip(pictures, detect(detector, pictures), strict=True):
        height, width = picture.shape[1:]
        assert len(output["boxes"]) > 0
        assert (output["boxes"] >= 0).all()
        assert (output["boxes"][:, 2:] <= torch.tensor([width, height]) + 1e-3).all()
        assert set(output["labels"].tolist()) <= {0, 1, 2}
        assert ("masks" in output) == detector.masks
        if detector.masks:
            assert output["masks"].shape == (len(output["boxes"]), 1, height, width)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_class_keeps_its_number_on_the_way_in_and_out(name: str) -> None:
    detector = create(name, CLASSES, backbone="test_resnet")
    given = targets(detector, images((48, 64)))
    there = detector.to_model(given)
    assert there[0]["labels"].tolist() == ([1, 2, 3] if name.endswith("rcnn") else [0, 1, 2])
    assert torch.equal(detector.to_classes(there)[0]["labels"], given[0]["labels"])
    assert there[0]["boxes"] is given[0]["boxes"]
    assert detector.to_classes(detector.to_model(no_objects(images((8, 8)))))[0]["labels"].shape == (0,)


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_trained_on_one_image_is_found_there(name: str) -> None:
    """The class, the place and the size come through the losses and back: no index is off by one."""
    detector = create(name, CLASSES, backbone="test_resnet", levels=(3, 4), size=96)
    picture = 0.2 * images((96, 96))[0]
    boxes = torch.tensor([[8.0, 8, 40, 40], [56, 16, 88, 48], [24, 56, 56, 88]])
    masks = torch.zeros(3, 96, 96, dtype=torch.uint8)
    for colour, (mask, (x1, y1, x2, y2)) in enumerate(zip(masks, boxes.long().tolist(), strict=True)):
        picture[colour, y1:y2, x1:x2] = 1.0
        mask[y1:y2, x1:x2] = 1
    wanted = detector.to_model([{"boxes": boxes, "labels": torch.arange(3), "masks": masks}])
    optimizer = torch.optim.AdamW(detector.model.parameters(), lr=3e-3)
    for module in detector.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for _ in range(60):
        optimizer.zero_grad()
        sum(detector.model([picture], wanted).values()).backward()
        optimizer.step()
    (output,) = detect(detector, [picture])
    # A box of every label, and each upside down, mirrored and transposed: the right one is the nearest by far.
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    turned = [(x1, 96 - y2, x2, 96 - y1), (96 - x2, y1, 96 - x1, y2), (y1, x1, y2, x2)]
    places = torch.cat([boxes, *(torch.stack(corners, dim=1) for corners in turned)])
    for label, box in enumerate(boxes):
        best = output["boxes"][output["labels"] == label][0]
        others = places[(places != box).any(dim=1)]
        assert 2 * (best - box).abs().max() < (best - others).abs().amax(dim=1).min(), (name, label)
        if name == "mask_rcnn":
            found = output["masks"][output["labels"] == label][0, 0] > 0.5
            overlaps = (found & masks.bool()).sum(dim=(1, 2)) / (found | masks.bool()).sum(dim=(1, 2))
            assert overlaps[label] > 2 * overlaps[torch.arange(3) != label].max(), label


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_backbone_keeps_timms_names_and_every_level_its_stride(backbone: str) -> None:
    finest = max(BACKBONES[backbone] - 2, 2)
    detector = create("retinanet", CLASSES, backbone=backbone, levels=range(finest, 8))
    plain = timm.create_model(backbone, num_classes=0)
    there, here = plain.state_dict(), backbone_of(detector).body.state_dict()
    assert {key: value.shape for key, value in here.items()} == {key: value.shape for key, value in there.items()}
    with torch.no_grad():
        pyramid = backbone_of(detector).eval()(torch.randn(2, 3, 160, 96))
    assert list(pyramid) == [f"p{level}" for level in range(finest, 8)]
    for level, found in zip(range(finest, 8), pyramid.values(), strict=True):
        assert found.shape == (2, 32, -(-160 // 2**level), -(-96 // 2**level))


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit", "swin_tiny_patch4_window7_224"])
def test_sides_of_any_length_are_fine(backbone: str) -> None:
    detector = create("fcos", CLASSES, backbone=backbone, size=417)
    pictures = images((301, 417))
    assert torch.isfinite(sum(losses(detector, pictures).values()))  # type: ignore[arg-type]
    accept_any_score(detector.model)
    (output,) = detect(detector, pictures)
    assert (output["boxes"][:, 2:] <= torch.tensor([417, 301]) + 1e-3).all()
    assert output["boxes"][:, 2].max() > 301, "the far side is reached"


@pytest.mark.parametrize("backbone", ["test_vit", "eva02_tiny_patch14_224"])
def test_a_plain_transformers_cells_lie_where_the_pyramid_says(backbone: str) -> None:
    """What a patch sees far from the origin must not drift: 14-pixel patches lie on a grid of 16."""
    pyramid = backbone_of(create("fcos", CLASSES, backbone=backbone, levels=(4,))).eval()
    seen = {}
    handle = pyramid.body.patch_embed.proj.register_forward_hook(lambda _m, _i, output: seen.update(embedded=output))
    dark, spot = torch.zeros(1, 3, 256, 192), torch.zeros(1, 3, 256, 192)
    spot[..., 200:216, 168:184] = 1  # on both sides of rows 208 and columns 176
    with torch.no_grad():
        pyramid(dark)
        before = seen["embedded"]
        pyramid(spot)
    handle.remove()
    cells = (seen["embedded"] - before).abs().sum(1)[0].sqrt()
    assert cells.shape == (16, 12)
    rows, columns = (cells > 0.1 * cells.max()).nonzero().unbind(1)
    assert (set(rows.tolist()), set(columns.tolist())) == ({12, 13}, {10, 11})


def test_a_plain_transformers_last_norm_goes_over_its_map() -> None:
    detector = create("fcos", CLASSES, backbone="test_vit", levels=(4,))
    body = backbone_of(detector).body.eval()
    seen: dict[str, Tensor] = {}
    backbone_of(detector).fpn.register_forward_pre_hook(lambda _m, given: seen.update(given[0]))
    picture = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        backbone_of(detector).eval()(picture)
        tokens = body.forward_features(picture)[:, body.num_prefix_tokens :]
    assert torch.allclose(seen["p4"].flatten(2).transpose(1, 2), tokens, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "levels", "unused"),
    [
        ("tf_efficientnet_lite0", (3, 4, 5, 6), ["conv_head", "bn2"]),
        ("test_resnet", (3, 4, 5), []),
        ("test_vit", (3, 4), []),
    ],
)
def test_layers_that_no_output_depends_on_are_named_and_do_not_train(
    backbone: str, levels: tuple[int, ...], unused: list[str]
) -> None:
    detector = create("fcos", CLASSES, backbone=backbone, levels=levels)
    assert detector.unused == [f"backbone.body.{layer}" for layer in unused]
    frozen = {path for path, parameter in detector.model.named_parameters() if not parameter.requires_grad}
    assert {path.rpartition(".")[0] for path in frozen} == set(detector.unused)


def test_stages_above_the_last_level_are_unused() -> None:
    detector = create("retinanet", CLASSES, backbone="test_resnet", levels=(3, 4))
    assert detector.unused
    assert all(layer.startswith("backbone.body.layer4.") for layer in detector.unused)
    backbone_of(detector).body.layer4.register_forward_hook(lambda *_: pytest.fail("computed for nothing"))
    sum(losses(detector, images((64, 64))).values()).backward()  # type: ignore[union-attr]
    missing = {path.rpartition(".")[0] for path, p in detector.model.named_parameters() if p.grad is None}
    assert missing == set(detector.unused)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_a_local_file_is_the_backbones_whatever_its_head(backbone: str, tmp_path: Path) -> None:
    classifier = timm.create_model(backbone, num_classes=7)
    randomise(classifier)
    path = write(state(classifier), tmp_path / "w.safetensors")
    body = backbone_of(create("fcos", CLASSES, backbone=backbone, pretrained=True, checkpoint=path)).body
    assert len(body.state_dict()) == len(classifier.state_dict()) - 2
    assert all(torch.equal(value, classifier.state_dict()[key]) for key, value in body.state_dict().items())


def test_creating_one_leaves_batchnorm_as_it_was() -> None:
    body = backbone_of(create("fcos", CLASSES, backbone="test_resnet")).body
    assert all(not value.any() for key, value in body.state_dict().items() if key.endswith("running_mean"))


def test_images_come_through_unchanged_if_they_have_the_size_and_are_scaled_if_not() -> None:
    detector = create_detector("fcos", CLASSES, backbone="test_vit", pretrained=False)
    assert detector.data_config == {"size": 640, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    transform: Any = detector.model.transform
    picture = torch.rand(3, 361, 640)
    for training in (True, False):
        batch, _ = transform.train(training)([picture])
        assert batch.image_sizes == [(361, 640)]
        assert batch.tensors.shape == (1, 3, 384, 640)
        assert torch.equal(batch.tensors[0, :, :361], (picture - 0.5) / 0.5)
        assert not batch.tensors[0, :, 361:].any()
    batch, scaled = transform([torch.rand(3, 1280, 700)], [{"boxes": torch.tensor([[10.0, 20, 30, 40]])}])
    assert batch.image_sizes == [(640, 350)]
    assert torch.allclose(scaled[0]["boxes"], torch.tensor([[5.0, 10, 15, 20]]))


@pytest.mark.parametrize("replaced", [{}, {"mean": (0.1, 0.2, 0.3), "std": None}, {"std": (0.4, 0.5, 0.6)}])
def test_images_are_normalised_as_the_backbone_wants_it_or_as_asked_for(replaced: dict[str, Any]) -> None:
    own = timm.create_model("test_resnet").pretrained_cfg
    mean, std = (replaced.get(key) or own[key] for key in ("mean", "std"))
    detector = create("fcos", CLASSES, backbone="test_resnet", data_config=replaced)
    assert detector.data_config == {"size": 64, "mean": mean, "std": std}
    transform: Any = detector.model.transform
    batch, _ = transform([torch.full((3, 64, 64), 0.6)])
    assert torch.allclose(batch.tensors[0, :, 5, 5], (0.6 - torch.tensor(mean)) / torch.tensor(std))


@pytest.mark.parametrize("name", ["retinanet", "fcos", "mask_rcnn"])
def test_the_new_parts_have_the_size_asked_for(name: str) -> None:
    def convs(detector: Any, path: str) -> list[int]:
        found = [m for m in detector.model.get_submodule(path).modules() if isinstance(m, nn.Conv2d)]
        return [conv.out_channels for conv in found]

    branch = "roi_heads.mask_head" if name == "mask_rcnn" else "head.regression_head.conv"
    for number, channels in ((1, 32), (3, 64)):
        detector = create(name, CLASSES, backbone="test_resnet", fpn_channels=channels, head_convs=number)
        assert convs(detector, branch) == [channels] * number
        assert convs(detector, "backbone.fpn") == [channels] * 7, "6 of the levels up to 5, one above"


def test_anchors_that_were_fitted_are_used() -> None:
    anchors = Anchors(((11.0, 22.0), (33.0, 44.0)), ((1.0,), (2.0,)))
    for name in ("retinanet", "faster_rcnn"):
        model: Any = create(name, CLASSES, backbone="test_resnet", levels=(3, 4), anchors=anchors).model
        generator = model.anchor_generator if name == "retinanet" else model.rpn.anchor_generator
        assert (generator.sizes, generator.aspect_ratios) == (anchors.sizes, anchors.aspect_ratios)


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn", "fcos"])
def test_every_level_has_its_share_of_boxes(name: str) -> None:
    """An anchor's stride is what its map has, and RoIs are cut from the backbone's own levels."""
    detector = create(name, CLASSES, backbone="test_resnet", levels=(2, 3, 4, 5, 6))
    model: Any = detector.model.eval()
    batch, _ = model.transform(images((64, 64)))
    pyramid = model.backbone(batch.tensors)
    generator = model.rpn.anchor_generator if name == "faster_rcnn" else model.anchor_generator
    (anchors,) = generator(batch, list(pyramid.values()))
    counts = [found.shape[2] * found.shape[3] for found in pyramid.values()]
    each = generator.num_anchors_per_location()
    assert len(anchors) == sum(count * number for count, number in zip(counts, each, strict=True))
    sides = (anchors[:, 2] - anchors[:, 0]).split([c * n for c, n in zip(counts, each, strict=True)])
    smallest = [level.min().item() for level in sides]
    assert smallest == sorted(set(smallest))
    if name == "fcos":
        assert smallest == [4, 8, 16, 32, 64]
    if name == "faster_rcnn":
        assert model.roi_heads.box_roi_pool.featmap_names == ["p2", "p3", "p4", "p5"]


@pytest.mark.parametrize("name", DETECTORS)
def test_images_without_objects_are_fine(name: str) -> None:
    detector = create(name, CLASSES, backbone="test_resnet")
    pictures = images((48, 64), (64, 64))
    found = detector.model(pictures, detector.to_model(no_objects(pictures)))
    assert all(torch.isfinite(loss) for loss in found.values())
    sum(found.values()).backward()
