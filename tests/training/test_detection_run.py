"""Detection on the one training loop: what a run learns, leaves behind and resumes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import visionlora as vl
from helpers.detection_runs import COLOURS, HEIGHT, WIDTH, make_detection_config, make_scenes
from helpers.runs import counting, interrupt
from visionlora.data.images import read_image
from visionlora.errors import InputError
from visionlora.tasks.detection.inference import predict_detections, thresholds_of
from visionlora.tasks.evaluation import score
from visionlora.tasks.models import Trained
from visionlora.tasks.trained import ADAPTER, MODEL, load_trained
from visionlora.training.folder import EVENTS, METRICS, REPORT
from visionlora.training.run import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"), train=16)


@pytest.fixture(scope="module")
def scenes_with_masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("masks"), train=6, val=3, masks=True)


def train_by_heart(scenes: Path, out: Path, **settings: Any) -> Path:
    data = {"val_annotations": str(copy_of(scenes)), "val": {"day": ["monday"]}}
    return train(make_detection_config(scenes, out, data=data, batch_size=2, **settings), quiet=True).folder


@pytest.fixture(scope="module")
def learned(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned its own training images by heart. Not to be changed."""
    return train_by_heart(
        scenes, tmp_path_factory.mktemp("learned") / "run", epochs=7, lr=3e-3, head_lr=3e-3, evaluate_every=3
    )


@pytest.fixture(scope="module")
def untrained_score(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """AP50 of the same run with a learning rate that moves nothing: what rises are counted from."""
    folder = train_by_heart(scenes, tmp_path_factory.mktemp("untrained") / "run", epochs=1, lr=1e-9, head_lr=1e-9)
    return float(read_lines(folder, "val")[-1]["AP50"])


def copy_of(scenes: Path) -> Path:
    """The same images under other names, so that they may be in both parts."""
    folder = scenes.parent / "again"
    folder.mkdir(exist_ok=True)
    for path in scenes.parent.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    target = folder / "scenes.json"
    target.write_text(scenes.read_text())
    return target


def read_lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_run_learns(learned: Path, untrained_score: float) -> None:
    assert max(line["AP50"] for line in read_lines(learned, "val")) > untrained_score + 0.4
    losses = [line["loss"] for line in read_lines(learned, "train")]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_a_run_leaves_scores_thresholds_curves_and_pictures(learned: Path) -> None:
    report = json.loads((learned / REPORT).read_text())
    best = max(read_lines(learned, "val"), key=lambda line: line["mAP"])
    assert report["best_epoch"] == best["epoch"] + 1
    assert {name: best[name] for name in report["scores"]} == pytest.approx(report["scores"], abs=1e-6)
    assert report["per_class"].keys() == report["thresholds"].keys() == set(COLOURS)
    assert report["per_class"]["red"].keys() == {"AP", "AP50"}
    scalars, pictures = set(), set()
    for file in sorted((learned / EVENTS).iterdir()):
        events = EventAccumulator(str(file)).Reload()
        scalars |= set(events.Tags()["scalars"])
        pictures |= set(events.Tags()["images"])
    assert {
        "train/loss",
        "train/classification",
        "train/bbox_regression",
        "train/bbox_ctrness",
        "val/mAP",
        "val_AP50_per_class/red",
    } <= scalars
    assert pictures == {"detections", "precision_recall_boxes"}


def test_the_file_carries_what_using_it_needs(learned: Path) -> None:
    header, report = vl.read_header(learned / ADAPTER), json.loads((learned / REPORT).read_text())
    assert header.classes == list(COLOURS)
    assert header.preprocessing == {"size": 96, "tile": None, "tile_overlap": 0}
    assert header.extra["task"] == "detection"
    expected = {name: found["score"] for name, found in report["thresholds"].items()}
    assert header.extra["thresholds"] == pytest.approx(expected, abs=1e-5)
    trained = load_trained(learned)
    assert thresholds_of(trained) == [header.extra["thresholds"][name] for name in COLOURS]
    assert thresholds_of(trained, 0.25) == [0.25, 0.25]


def pictures_of(scenes: Path, count: int) -> list[Any]:
    return [read_image(scenes.parent / f"{number:02}.png") for number in range(count)]


def test_merged_and_adapted_detectors_find_the_same(learned: Path, scenes: Path) -> None:
    merged, adapted = load_trained(learned), load_trained(learned, merged=False)
    assert not any("lora" in name for name in merged.model.state_dict())
    assert any("lora" in name for name in adapted.model.state_dict())
    pictures = pictures_of(scenes, 6)
    found, expected = (predict_detections(one, pictures, [0.05, 0.05], CPU) for one in (merged, adapted))
    assert sum(len(one["boxes"]) for one in found) > 10
    for mine, theirs in zip(found, expected, strict=True):
        assert_same_set(mine, theirs)


def assert_same_set(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """The same detections in any order."""
    assert len(mine["boxes"]) == len(theirs["boxes"])
    far = torch.cdist(mine["boxes"], theirs["boxes"], p=float("inf")) > 0.01
    far |= (mine["scores"][:, None] - theirs["scores"]).abs() > 1e-5
    far |= mine["labels"][:, None] != theirs["labels"]
    assert (~far).any(dim=1).all()
    assert (~far).any(dim=0).all()


def test_detections_lie_in_the_images_own_pixels(learned: Path, scenes: Path) -> None:
    trained = load_trained(learned)
    document = json.loads(scenes.read_text())
    found = predict_detections(trained, pictures_of(scenes, 16), thresholds_of(trained), CPU)
    objects = [entry for entry in document["annotations"] if entry["image_id"] < 16]

    def hits(shift: int) -> int:
        """Objects that were found in the image so many places further on."""
        count = 0
        for entry in objects:
            x, y, width, height = entry["bbox"]
            one = found[(entry["image_id"] + shift) % 16]
            close = (one["boxes"] - torch.tensor([x, y, x + width, y + height])).abs().amax(dim=1) < 6
            count += bool((close & (one["labels"] == entry["category_id"] - 1)).any())
        return count

    assert hits(0) > hits(1) + len(objects) / 3


def test_a_larger_image_of_the_same_scene_has_the_same_detections_in_its_own_pixels(
    learned: Path, scenes: Path
) -> None:
    trained, picture = load_trained(learned), read_image(scenes.parent / "01.png")
    large = picture.repeat(3, axis=0).repeat(3, axis=1)
    small_found, large_found = predict_detections(trained, [picture, large], thresholds_of(trained), CPU)
    assert len(small_found["boxes"])
    assert torch.allclose(large_found["boxes"] / 3, small_found["boxes"], atol=2)


def test_tiles_are_joined_and_scored_on_whole_images(learned: Path, scenes: Path, untrained_score: float) -> None:
    from visionlora.data.annotations.choosing import select
    from visionlora.data.annotations.layouts import read_annotations

    data = select(read_annotations(scenes), {"day": ["monday"]})
    trained = load_trained(learned)
    shown = replace(trained.preprocessing, size=80, tile=80, tile_overlap=64)
    tiled = replace(trained, preprocessing=shown)
    counted: list[int] = []
    scores = score(tiled, data, batch_size=5, progress=counting(counted)).scores()
    assert sum(counted) == 2 * len(data)  # an image of 96 x 64 has two tiles, at the scale that was learned
    assert scores["AP50"] > untrained_score + 0.3
    found = predict_detections(tiled, pictures_of(scenes, 3), [0.3, 0.3], CPU)
    assert all((one["boxes"][:, 2] <= WIDTH).all() and (one["boxes"][:, 3] <= HEIGHT).all() for one in found)


@pytest.mark.parametrize(
    ("name", "method"), [("retinanet", "head"), ("fcos", "full"), ("faster_rcnn", "lora"), ("fcos", "lora")]
)
def test_models_and_methods_train_and_load(scenes: Path, tmp_path: Path, name: str, method: str) -> None:
    data = {"every": 2, "augment": "strong", "repeat_threshold": 0.9}
    config = make_detection_config(
        scenes,
        tmp_path / "run",
        {"name": name, "backbone": "test_efficientnet", "checkpoint": None, "pretrained": False},
        data,
        method=method,
        epochs=1,
    )
    result = train(config, quiet=True)
    trained = load_trained(result.folder)
    total = sum(parameter.numel() for parameter in trained.model.parameters())
    with safe_open(result.folder / (MODEL if method == "full" else ADAPTER), "pt") as file:
        names = set(file.keys())
    new = {key for key, _ in trained.model.named_parameters() if key.startswith(tuple(trained.built.head))}
    assert new <= names
    if method == "full":
        assert names == set(trained.model.state_dict())
        unused = sum(p.numel() for path in trained.built.unused for p in trained.model.get_submodule(path).parameters())
        assert result.trainable == total - unused
        norms = [m for m in trained.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all((norm.running_mean == 0).all() and (norm.running_var == 1).all() for norm in norms)  # as they began
        assert any((norm.weight != 1).any() for norm in norms)
    else:
        assert any("lora_A" in key for key in names) == (method == "lora")
        assert result.trainable < total


def test_masks_are_trained_scored_and_drawn(scenes_with_masks: Path, tmp_path: Path) -> None:
    model = {"name": "mask_rcnn", "fpn_channels": 16}
    result = train(make_detection_config(scenes_with_masks, tmp_path / "run", model, epochs=1), quiet=True)
    assert {"segm_mAP", "segm_AP50", "mAP"} <= result.scores.keys()
    trained = load_trained(result.folder)
    trained.model.roi_heads.score_thresh = 0.0  # type: ignore[union-attr,assignment]
    picture = pictures_of(scenes_with_masks, 1)[0].repeat(2, axis=0).repeat(2, axis=1)
    found = predict_detections(trained, [picture], [0.0, 0.0], CPU)[0]
    assert found["masks"].shape == (len(found["boxes"]), 2 * HEIGHT, 2 * WIDTH)
    assert found["masks"].dtype == torch.bool


def test_masks_are_asked_for_where_the_model_makes_some(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no mask"):
        train(make_detection_config(scenes, tmp_path / "run", {"name": "mask_rcnn"}), quiet=True)
    assert not (tmp_path / "run").exists()


def test_validation_images_without_objects_have_no_score_and_the_last_epoch_is_kept(tmp_path: Path) -> None:
    empty = make_scenes(tmp_path / "scenes", train=4, val=2, val_objects=False)
    result = train(make_detection_config(empty, tmp_path / "run", epochs=3, patience=1), quiet=True)
    assert (result.scores, result.best_epoch) == ({}, 3)
    assert load_trained(result.folder).about["thresholds"] == {}


def test_anchors_are_fitted_and_come_back(scenes: Path, tmp_path: Path) -> None:
    result = train(
        make_detection_config(scenes, tmp_path / "run", {"name": "retinanet", "anchors": "fit"}, epochs=1), quiet=True
    )
    trained = load_trained(result.folder)
    fitted = trained.about["model"]["anchors"]["sizes"]
    found = [list(sizes) for sizes in trained.model.anchor_generator.sizes]  # type: ignore[union-attr]
    assert found == fitted
    assert fitted[0] != [32.0, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)]


@pytest.mark.parametrize("settings", [{"autocast": "bf16"}, {"channels_last": True, "accumulate": 2}])
def test_options_train(scenes: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    result = train(make_detection_config(scenes, tmp_path / "run", epochs=1, **settings), quiet=True)
    assert (result.folder / ADAPTER).is_file()


def test_interrupted_runs_go_on_as_if_nothing_had_happened(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str) -> Any:
        # everything that draws random numbers: an R-CNN samples proposals, repeats draw images
        data = {"augment": "strong", "repeat_threshold": 0.9}
        return make_detection_config(scenes, tmp_path / name, {"name": "faster_rcnn"}, data, checkpoint_every=1000)

    whole = train(config("whole"), quiet=True)

    interrupt(config("run"), monkeypatch)
    result = train(config("run"), resume=True, quiet=True)
    assert (result.folder / METRICS).read_bytes() == (whole.folder / METRICS).read_bytes()
    assert result.scores == whole.scores


def test_the_base_alone_can_be_loaded_to_compare_with(learned: Path) -> None:
    base: Trained = load_trained(learned, base=True)
    body = "backbone.body.conv1.0.weight"
    assert not torch.equal(base.model.state_dict()[body], load_trained(learned).model.state_dict()[body])
