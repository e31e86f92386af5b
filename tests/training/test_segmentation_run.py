"""Semantic segmentation on the one training loop: what a run learns, leaves behind and resumes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import visionlora as vl
from helpers.runs import counting, interrupt
from helpers.segmentation_runs import (
    COLOURS,
    HEIGHT,
    VALUES,
    WIDTH,
    draw_scene,
    make_masks,
    make_polygons,
    make_segmentation_config,
)
from visionlora.data.images import read_image
from visionlora.data.segmentation.split import load_segmented_split
from visionlora.demo.base import base_path
from visionlora.errors import InputError
from visionlora.models.classifier import create_classifier
from visionlora.models.detector import create_detector
from visionlora.tasks.evaluation import score
from visionlora.tasks.segmentation.inference import colors_of, predict_masks, values_of
from visionlora.tasks.segmentation.task import TASK
from visionlora.tasks.trained import ADAPTER, MODEL, load_trained
from visionlora.training.folder import EVENTS, METRICS, REPORT
from visionlora.training.run import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_masks(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def learned(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder. Not to be changed."""
    return train_well(scenes, tmp_path_factory.mktemp("learned") / "run", epochs=6)


@pytest.fixture(scope="module")
def untrained_score(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """mIoU of the same run with a learning rate that moves nothing: what rises are counted from."""
    folder = train_well(scenes, tmp_path_factory.mktemp("untrained") / "run", epochs=1, lr=1e-9, head_lr=1e-9)
    return float(read_lines(folder, "val")[-1]["mIoU"])


def train_well(scenes: Path, out: Path, **settings: Any) -> Path:
    settings |= {"batch_size": 3, "loss": {"cross_entropy": 1, "dice": 0.5}, "class_weights": "median_frequency"}
    return train(make_segmentation_config(scenes, out, **settings), quiet=True).folder


def read_lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_run_learns(learned: Path, untrained_score: float) -> None:
    assert max(line["mIoU"] for line in read_lines(learned, "val")) > untrained_score + 0.15
    losses = [line["loss"] for line in read_lines(learned, "train")]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_a_run_leaves_scores_and_pictures(learned: Path) -> None:
    report = json.loads((learned / REPORT).read_text())
    best = max(read_lines(learned, "val"), key=lambda line: line["mIoU"])
    assert report["best_epoch"] == best["epoch"] + 1
    assert {name: best[name] for name in report["scores"]} == pytest.approx(report["scores"], abs=1e-6)
    assert report["per_class"].keys() == set(COLOURS)
    assert report["per_class"]["red"].keys() == {"IoU", "accuracy"}
    assert sum(map(sum, report["confusion"])) == 4 * WIDTH * (HEIGHT - 3)  # three rows are void
    scalars, pictures = set(), set()
    for file in sorted((learned / EVENTS).iterdir()):
        events = EventAccumulator(str(file)).Reload()
        scalars |= set(events.Tags()["scalars"])
        pictures |= set(events.Tags()["images"])
    assert {"train/loss", "train/dice", "val/mIoU", "val_IoU_per_class/red"} <= scalars
    assert pictures == {"masks", "confusion_matrix"}


def test_the_file_carries_what_using_it_needs(learned: Path) -> None:
    header, trained = vl.read_header(learned / ADAPTER), load_trained(learned)
    assert header.classes == list(COLOURS)
    assert (header.extra["task"], header.preprocessing["size"]) == ("segmentation", WIDTH)
    assert colors_of(trained) == list(COLOURS.values())
    assert values_of(trained) == VALUES
    assert trained.preprocessing.to_dict() == header.preprocessing


def test_predictions_lie_in_the_images_own_pixels(learned: Path) -> None:
    generator, trained = np.random.default_rng(5), load_trained(learned)
    scenes = [draw_scene(generator, WIDTH, HEIGHT) for _ in range(3)]
    large = [array.repeat(3, axis=0).repeat(3, axis=1) for array in scenes[0]]
    found = predict_masks(trained, [*(pixels for pixels, _ in scenes), large[0]], CPU)
    truths = [*(labels for _, labels in scenes), large[1]]
    assert [(mask.shape, mask.dtype) for mask in found] == [(truth.shape, np.uint8) for truth in truths]
    assert agreement(found[0], truths[0]) > agreement(found[0], truths[1]) + 0.05
    assert agreement(found[1], truths[1]) > agreement(found[1], truths[2]) + 0.05
    assert agreement(found[2], truths[2]) > agreement(found[2], truths[0]) + 0.05
    again = found[3][1::3, 1::3]
    assert agreement(again, found[0]) > agreement(again, found[1]) + 0.05


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one == other).mean())


def test_scores_of_windows_are_of_whole_images(learned: Path, scenes: Path, untrained_score: float) -> None:
    trained = load_trained(learned)
    data = load_segmented_split(make_segmentation_config(scenes, Path("unused")).data).val
    whole = score(trained, data, batch_size=3).scores()
    assert whole == pytest.approx(json.loads((learned / REPORT).read_text())["scores"], abs=1e-6)
    shown = replace(trained.preprocessing, window=48, window_overlap=24)
    counted: list[int] = []
    windowed = score(replace(trained, preprocessing=shown), data, progress=counting(counted))
    assert sum(counted) == len(data)
    assert windowed.scores() != whole
    assert windowed.scores()["mIoU"] > untrained_score + 0.1
    assert sum(map(sum, windowed.confusion())) == 4 * WIDTH * (HEIGHT - 3)


KINDS = [("unet", "test_efficientnet"), ("fpn", "test_convnext"), ("multilevel", "test_vit")]
"""Kinds of backbones; tests/models/test_segmenter_adapters.py merges every decoder."""


@pytest.mark.parametrize(("name", "backbone"), [*KINDS, ("lraspp_mobilenet_v3_large", None)])
def test_a_trained_model_merges_to_what_it_was(scenes: Path, tmp_path: Path, name: str, backbone: str | None) -> None:
    model: dict[str, Any] = {"name": name, "backbone": backbone, "checkpoint": None, "pretrained": False}
    model |= {"mean": None, "std": None, "channels": 16 if backbone and name != "linear" else None, "size": 64}
    result = train(make_segmentation_config(scenes, tmp_path / "run", model, {"every": 3}, epochs=1), quiet=True)
    merged, adapted = load_trained(result.folder), load_trained(result.folder, merged=False)
    assert not any("lora" in key for key in merged.model.state_dict())
    assert any("lora_B" in key and value.any() for key, value in adapted.model.state_dict().items())
    images = torch.randn(2, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        mine, theirs = merged.model(images), adapted.model(images)
    assert (mine - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("method", ["head", "full"])
def test_methods_train_and_load(scenes: Path, tmp_path: Path, method: str) -> None:
    config = make_segmentation_config(scenes, tmp_path / "run", method=method, epochs=1)
    result = train(config, quiet=True)
    trained = load_trained(result.folder)
    with safe_open(result.folder / (MODEL if method == "full" else ADAPTER), "pt") as file:
        names = set(file.keys())
    if method == "full":
        assert names == set(trained.model.state_dict())
    else:
        assert names == {name for name in trained.model.state_dict() if name.startswith("decoder.")}
    data = load_segmented_split(config.data).val
    assert score(trained, data).scores() == pytest.approx(result.scores, abs=1e-6)


def test_polygons_train_with_a_background(tmp_path: Path) -> None:
    path = make_polygons(tmp_path / "scenes")
    data = {"annotations": str(path), "gap": 1, "crop": 48, "augment": "surveillance"}
    result = train(make_segmentation_config(None, tmp_path / "run", data=data, epochs=1), quiet=True)
    trained = load_trained(result.folder)
    assert trained.classes == ["background", "red", "blue"]
    assert values_of(trained) == [0, 1, 2]
    assert result.per_class.keys() == set(trained.classes)


@pytest.mark.parametrize(
    "settings",
    [
        {"autocast": "bf16"},
        {"channels_last": True, "accumulate": 2},
        {"loss": {"focal": 1.0}, "focal_gamma": 0.5},
        {"monitor": "pixel_accuracy", "patience": 1},
    ],
)
def test_options_train(scenes: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    data = {"window": 48, "window_overlap": 8, "crop": [48, 64], "augment": "strong"}
    result = train(make_segmentation_config(scenes, tmp_path / "run", None, data, epochs=1, **settings), quiet=True)
    assert (result.folder / ADAPTER).is_file()


def test_interrupted_runs_go_on_as_if_nothing_had_happened(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str) -> Any:
        data = {"augment": "strong", "crop": 48, "window": 64}
        loss = {"cross_entropy": 1, "dice": 1, "focal": 1}
        return make_segmentation_config(scenes, tmp_path / name, None, data, loss=loss, checkpoint_every=1000)

    whole = train(config("whole"), quiet=True)

    interrupt(config("run"), monkeypatch)
    result = train(config("run"), resume=True, quiet=True)
    assert (result.folder / METRICS).read_bytes() == (whole.folder / METRICS).read_bytes()
    assert result.scores == whole.scores
    with (
        safe_open(result.folder / ADAPTER, "pt") as resumed,
        safe_open(whole.folder / ADAPTER, "pt") as uninterrupted,
    ):
        assert list(resumed.keys()) == list(uninterrupted.keys())
        assert all(torch.equal(resumed.get_tensor(key), uninterrupted.get_tensor(key)) for key in list(resumed.keys()))


def test_deeplabv3_needs_two_images_to_train_its_norms(scenes: Path, tmp_path: Path) -> None:
    model = {"name": "deeplabv3_mobilenet_v3_large", "backbone": None, "checkpoint": None, "pretrained": False}
    config = make_segmentation_config(
        scenes, tmp_path / "run", {**model, "channels": None}, method="full", batch_size=1
    )
    with pytest.raises(InputError, match="can't train its BatchNorm with train.batch_size=1"):
        train(config, quiet=True)
    assert not (tmp_path / "run").exists()


def test_pictures_of_the_validation_images_are_read_from_their_files(learned: Path, scenes: Path) -> None:
    picture = read_image(scenes / "val" / "images" / "00.png")
    alone = predict_masks(load_trained(learned), [picture], CPU)[0]
    among = predict_masks(load_trained(learned), [picture[:40], picture, picture[:, :50]], CPU)[1]
    assert np.array_equal(alone, among)


def features(backbone: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = backbone.eval().forward_features(torch.randn(1, 3, 64, 96, generator=torch.Generator()))
    return found


def classifier() -> nn.Module:
    return create_classifier("test_resnet", 5, pretrained=False, checkpoint=base_path()).model


def detectors_backbone() -> nn.Module:
    detector = create_detector("fcos", ["car"], backbone="test_resnet", pretrained=False, checkpoint=base_path())
    body = detector.model.backbone.body  # type: ignore[union-attr]
    assert isinstance(body, nn.Module)
    return body


@pytest.mark.parametrize("create", [classifier, detectors_backbone])
def test_a_segmenters_adapter_carries_over(learned: Path, create: Callable[[], nn.Module]) -> None:
    trained, other = load_trained(learned), create()
    before = features(other)
    vl.load_adapter(other, learned / ADAPTER, prefix="backbone")
    after = features(trained.model.backbone)
    assert torch.allclose(features(other), after, atol=1e-5 * float(after.abs().max()))
    assert not torch.allclose(before, after, atol=0.01 * float(after.abs().max()))


def test_a_segmenters_adapter_is_refused_by_another_base(learned: Path) -> None:
    with pytest.raises(InputError, match="frozen tensors differ"):
        vl.load_adapter(timm.create_model("test_resnet", num_classes=5), learned / ADAPTER, prefix="backbone")


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_adapters_of_other_tasks_carry_over_to_a_segmenter(scenes: Path, tmp_path: Path, task: str) -> None:
    if task == "classification":
        model, prefix = classifier(), {}
        source: Any = model
        head = ["fc"]
    else:
        detector = create_detector("fcos", ["car"], backbone="test_resnet", pretrained=False, checkpoint=base_path())
        model, prefix, head = detector.model, {"prefix": "backbone.body"}, detector.head
        source = model.backbone.body  # type: ignore[union-attr]
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=head))
    for path, parameter in model.named_parameters():
        if path.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.05)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    segmenter: Any = TASK.set_up(make_segmentation_config(scenes, tmp_path / "run")).built.model
    vl.load_adapter(segmenter.backbone, tmp_path / "a.safetensors", heads=False, **prefix)
    expected = features(source)
    assert torch.allclose(features(segmenter.backbone), expected, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(features(classifier()), expected, atol=0.01 * float(expected.abs().max()))
