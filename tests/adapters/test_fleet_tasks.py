"""Fleets of detectors and segmenters, with cameras that have other classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import visionlora as vl
from helpers.fleets import difference, move, one_by_one, save_cameras
from helpers.tiny_detectors import accept_any_score, create, images, look_at_few_boxes
from helpers.tiny_segmenters import create as create_segmenter

CAMERAS = ["camera2", "camera0", "camera1", "camera0"]
PICTURES = [image.double() for image in images(*[(64, 64)] * 4)]


def detector(name: str, classes: list[str], **options: Any) -> Any:
    torch.manual_seed(0)
    made = create(name, classes, **options)
    accept_any_score(made.model)
    look_at_few_boxes(made.model)
    made.model.double().eval()
    return made


def same_objects(found: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine["scores"]) > 0 and torch.equal(mine["labels"], theirs["labels"])
        for key in ("boxes", "scores"):
            assert difference(mine[key], theirs[key]) < 1e-9


@pytest.mark.parametrize(
    ("name", "reason"),
    [("retinanet", ""), ("fcos", ""), ("faster_rcnn", "'roi_heads.box_head.fc6' is read")],
)
def test_detectors(name: str, reason: str, tmp_path: Path) -> None:
    made = detector(name, ["ant", "bee"], backbone="test_resnet")
    config = {"unfreeze": made.head}
    fleet = vl.Fleet(made.model, save_cameras(made.model, tmp_path, config, config, config, scale=0.02))
    found = fleet(PICTURES, CAMERAS)
    assert fleet.reason.startswith(reason) and bool(fleet.reason) == bool(reason)
    same_objects(found, [answer[0] for answer in one_by_one(fleet, PICTURES, CAMERAS)])


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_detectors_with_other_classes(name: str, tmp_path: Path) -> None:
    base = detector(name, ["ant", "bee"], backbone="test_resnet")
    files = {}
    for classes in (["ant"], ["ant", "bee", "wasp"]):
        other = detector(name, classes, backbone="test_resnet")
        own = {key: value for key, value in base.model.state_dict().items() if not key.startswith(tuple(base.head))}
        other.model.load_state_dict(own, strict=False)
        vl.attach(other.model, vl.LoRAConfig(rank=2, unfreeze=other.head))
        move(other.model, 0.02)
        files[f"of_{len(classes)}"] = tmp_path / f"{len(classes)}.safetensors"
        vl.save_adapter(other.model, files[f"of_{len(classes)}"])
        with torch.no_grad():
            expected = other.model.eval()(PICTURES[:2])
    fleet = vl.Fleet(base.model, files)
    found = fleet(PICTURES[:3], ["of_3", "of_3", "of_1"])
    same_objects(found[:2], expected)
    assert [len(found[at]["labels"].unique()) for at in (0, 2)] == [3, 1]
    assert "numbers of classes" in fleet.reason or "roi_heads" in fleet.reason


def segmenter(classes: int) -> Any:
    torch.manual_seed(0)
    return create_segmenter("unet", classes=[f"c{number}" for number in range(classes)], backbone="test_resnet")


def test_segmenters_with_other_classes(tmp_path: Path) -> None:
    base = segmenter(3)
    files = {}
    for classes in (2, 3, 5):
        other = segmenter(classes)
        heads = tuple(other.head)
        own = {key: value for key, value in base.model.state_dict().items() if not key.startswith(heads)}
        other.model.load_state_dict(own, strict=False)
        vl.attach(other.model.double(), vl.LoRAConfig(rank=2, unfreeze=other.head))
        move(other.model, 0.02)
        files[f"of_{classes}"] = tmp_path / f"{classes}.safetensors"
        vl.save_adapter(other.model, files[f"of_{classes}"])
    fleet = vl.Fleet(base.model.double().eval(), files)
    pictures, cameras = torch.rand(4, 3, 64, 64, dtype=torch.float64), ["of_5", "of_2", "of_3", "of_2"]
    found = fleet(pictures, cameras)
    for mine, theirs, classes in zip(found, one_by_one(fleet, pictures, cameras), (5, 2, 3, 2), strict=True):
        assert len(mine) == classes and difference(mine, theirs[0]) < 1e-9
    assert fleet.reason == ""
