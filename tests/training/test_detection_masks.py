"""Mask R-CNN on shapes whose masks are polygons and run lengths: it learns them, and they outlive the run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import visionlora as vl
from helpers.detection_runs import make_detection_config
from helpers.shape_scenes import SHAPES, SIDE, make_shapes
from visionlora.data.annotations.annotated import AnnotatedImages, Polygons, RunLengths
from visionlora.data.annotations.layouts import read_annotations
from visionlora.data.detection.targets import make_target
from visionlora.data.geometry import whole_view
from visionlora.data.images import read_image
from visionlora.tasks.detection.config import DetectorSection
from visionlora.tasks.detection.inference import predict_detections
from visionlora.tasks.detection.task import TASK
from visionlora.tasks.evaluation import score
from visionlora.tasks.models import Trained
from visionlora.tasks.trained import ADAPTER, load_trained
from visionlora.training.folder import REPORT
from visionlora.training.run import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("val"), 6, seed=1)


@pytest.fixture(scope="module")
def learned(val: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over 16 images, validated on others. Not to be changed."""
    return train_on_shapes(tmp_path_factory.mktemp("learned"), val, epochs=4)


def train_on_shapes(folder: Path, val: Path, **settings: Any) -> Path:
    model = {"name": "mask_rcnn", "levels": [3, 4], "head_convs": 2}
    data = {"train": None, "val": None, "val_annotations": str(val)}
    shapes = make_shapes(folder / "train", 16)
    return train(
        make_detection_config(shapes, folder / "run", model, data, batch_size=2, **settings), quiet=True
    ).folder


def pictures_of(data: AnnotatedImages) -> list[np.ndarray]:
    return [read_image(image.path) for image in data.images]


def found_by(trained: Trained, data: AnnotatedImages, score: float) -> list[dict[str, Tensor]]:
    return predict_detections(trained, pictures_of(data), [score, score], CPU)


def assert_same_sets(mine: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> None:
    """The same detections of each image in any order, with masks that differ in no more than a pixel."""
    assert sum(len(one["boxes"]) for one in mine) >= 10
    for one, other in zip(mine, theirs, strict=True):
        assert len(one["boxes"]) == len(other["boxes"])
        far = torch.cdist(one["boxes"], other["boxes"], p=float("inf")) > 0.01
        far |= (one["scores"][:, None] - other["scores"]).abs() > 1e-5
        far |= one["labels"][:, None] != other["labels"]
        far |= (one["masks"][:, None] ^ other["masks"]).sum(dim=(2, 3)) > 1
        assert (~far).any(dim=1).all() and (~far).any(dim=0).all()


def test_mask_ap_rises(learned: Path, val: Path, tmp_path: Path) -> None:
    untrained = train_on_shapes(tmp_path, val, epochs=1, lr=1e-9, head_lr=1e-9)
    control, scores = (json.loads((folder / REPORT).read_text())["scores"] for folder in (untrained, learned))
    assert scores["segm_AP50"] > control["segm_AP50"] + 0.2
    assert scores["segm_mAP"] > control["segm_mAP"] + 0.1


def test_masks_of_both_kinds_are_met(learned: Path, val: Path) -> None:
    data = read_annotations(val)
    found = found_by(load_trained(learned), data, 0.3)
    best: dict[type, list[float]] = {Polygons: [], RunLengths: []}
    elsewhere: dict[type, list[float]] = {Polygons: [], RunLengths: []}
    for image, one, other in zip(data.images, found, [*found[1:], found[0]], strict=True):
        assert one["masks"].shape == (len(one["boxes"]), SIDE, SIDE) and one["masks"].dtype == torch.bool
        truth = make_target(image.objects, whole_view(SIDE, SIDE, SIDE), masks=True, train=False)
        for thing, mask in zip(image.objects, truth["masks"].bool(), strict=True):
            best[type(thing.mask)].append(largest_overlap(one["masks"], mask))
            elsewhere[type(thing.mask)].append(largest_overlap(other["masks"], mask))
    for kind, overlaps in best.items():
        assert len(overlaps) >= 4
        assert np.mean(overlaps) > np.mean(elsewhere[kind]) + 0.1, kind


def largest_overlap(masks: Tensor, mask: Tensor) -> float:
    """Intersection over union of (H, W) with the best of (N, H, W); 0 where N is 0."""
    overlaps = (masks & mask).sum(dim=(1, 2)) / (masks | mask).sum(dim=(1, 2))
    return float(overlaps.max()) if len(overlaps) else 0.0


def test_masks_outlive_saving_loading_and_merging(learned: Path, val: Path, tmp_path: Path) -> None:
    data = read_annotations(val)
    adapted, merged = load_trained(learned, merged=False), load_trained(learned)
    expected = found_by(adapted, data, 0.1)
    assert_same_sets(found_by(merged, data, 0.1), expected)

    # by hand, as somebody has it who loads the adapter into a detector of their own
    plain = TASK.build(section_of(merged), list(SHAPES))
    vl.load_adapter(plain.model, learned / ADAPTER)
    vl.merge(plain.model)
    assert_same_sets(found_by(with_model(merged, plain.model), data, 0.1), expected)

    save_file({key: value.contiguous() for key, value in merged.model.state_dict().items()}, tmp_path / "m.safetensors")
    other = TASK.build(section_of(merged).model_copy(update={"checkpoint": None, "pretrained": False}), list(SHAPES))
    other.model.load_state_dict(load_file(tmp_path / "m.safetensors"), strict=True)
    assert_same_sets(found_by(with_model(merged, other.model), data, 0.1), expected)


def test_a_loaded_detector_has_the_scores_that_the_run_reported(learned: Path, val: Path) -> None:
    reported = json.loads((learned / REPORT).read_text())["scores"]
    scores = score(load_trained(learned), read_annotations(val), batch_size=3).scores()
    assert scores == pytest.approx(reported, abs=1e-6)
    assert scores["segm_mAP"] != scores["mAP"]


def section_of(trained: Trained) -> DetectorSection:
    return DetectorSection.model_validate(trained.about["model"])


def with_model(trained: Trained, model: torch.nn.Module) -> Trained:
    return replace(trained, built=replace(trained.built, model=model.eval()))
