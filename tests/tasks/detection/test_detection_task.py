"""The detection task: its batches, its loss, its evaluation samples and what it scores them against."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.detection_runs import make_detection_config, make_scenes
from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.errors import InputError
from visionlora.tasks.detection.config import DetectorSection
from visionlora.tasks.detection.evaluation import DetectionEvaluation, evaluation_loader, evaluation_set
from visionlora.tasks.detection.inference import DetectorInput, detect, keep
from visionlora.tasks.detection.task import TASK
from visionlora.tasks.models import Trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"), train=9, val=4, masks=True)


def set_up(scenes: Path, name: str = "faster_rcnn", data: dict[str, Any] | None = None, **train: Any) -> Any:
    """What the task makes of a config."""
    return TASK.set_up(make_detection_config(scenes, Path("unused"), {"name": name}, data, **train))


class Recorder(nn.Module):
    """Keeps what it is given, and returns two losses."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        self.images, self.targets = images, targets
        return {"classification": torch.tensor(2.0), "boxes": torch.tensor(0.5)}


@pytest.mark.parametrize(("batchnorm", "sizes"), [("frozen", [4, 4, 1]), ("train", [4, 4]), ("recalibrate", [4, 4])])
def test_a_lone_last_image_is_left_out_where_batchnorm_measures(scenes: Path, batchnorm: str, sizes: list[int]) -> None:
    config = make_detection_config(scenes, Path("unused"), {"name": "faster_rcnn"}, batch_size=4)
    config = config.model_copy(update={"lora": replace(config.lora, batchnorm=batchnorm)})
    assert [len(batch) for batch in TASK.set_up(config).training.train_batches(0)] == sizes


def test_the_loss_is_the_sum_of_the_models_with_labels_as_it_counts_them(scenes: Path) -> None:
    task, model = set_up(scenes).training, Recorder()
    batch = next(iter(task.train_loader(task.train_batches(0))))
    assert float(task.loss(model, batch)) == 2.5
    assert {name: float(value) for name, value in task.loss_parts.items()} == {"classification": 2.0, "boxes": 0.5}
    for given, target in zip(model.targets, batch["target"], strict=True):
        assert torch.equal(given["labels"], target["labels"] + 1)  # 0 is an R-CNN's background
        assert torch.equal(given["boxes"], target["boxes"])
    assert all(image.shape[0] == 3 and max(image.shape) == 96 for image in model.images)


def test_an_epoch_shows_every_image_once_and_follows_from_seed_and_epoch(scenes: Path) -> None:
    first, second = set_up(scenes, batch_size=4).training, set_up(scenes, batch_size=4).training
    second.train_batches(7)
    for epoch in (0, 1):
        keys = [key for batch in first.train_batches(epoch) for key in batch]
        assert sorted(index for _, index in keys) == list(range(9))
        assert second.train_batches(epoch) == first.train_batches(epoch)
    assert first.train_batches(0) != set_up(scenes, batch_size=4, seed=1).training.train_batches(0)


def test_tiles_train_and_validate(scenes: Path) -> None:
    setup = set_up(scenes, data={"tile": 64, "tile_overlap": 32})
    trained = Trained("detection", setup.built, setup.classes, setup.preprocessing, Path(), {})
    loader: Any = TASK.loader(trained, setup.val, 4, 0)
    assert (len(setup.training.train_set), len(loader.dataset)) == (18, 8)
    assert setup.preprocessing == DetectorInput(96, 64, 32)
    batch = next(iter(loader))
    assert [target["window"] for target in batch["target"]] == [(0, 0, 64, 64), (32, 0, 96, 64)] * 2
    assert {target["size"] for target in batch["target"]} == {(96, 96)}


def all_knowing(data: AnnotatedImages, targets: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
    """What a perfect Faster R-CNN, whose labels count from 1, gives for samples."""
    outputs = []
    for target in targets:
        (x1, y1, x2, y2), (width, height) = target["window"], target["size"]
        scale = torch.tensor([width / (x2 - x1), height / (y2 - y1)] * 2)
        seen: list[Tensor] = []
        labels: list[int] = []
        for thing in data.images[target["image_id"]].objects:
            box = (torch.tensor(thing.box) - torch.tensor([x1, y1, x1, y1])) * scale
            box = torch.minimum(box.clamp(min=0), torch.tensor([width, height] * 2))
            if ((box[2:] - box[:2]) > 1).all():
                seen.append(box)
                labels.append(thing.label + 1)
        boxes = torch.stack(seen) if seen else torch.zeros(0, 4)
        scores = torch.full((len(seen),), 0.9)
        outputs.append({"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64), "scores": scores})
    return outputs


@pytest.mark.parametrize("shown", [DetectorInput(96), DetectorInput(50), DetectorInput(200), DetectorInput(64, 64, 40)])
def test_perfect_outputs_score_one_in_the_files_pixels(scenes: Path, shown: DetectorInput) -> None:
    setup = set_up(scenes)
    data = setup.training.train_set.data
    metrics = DetectionEvaluation(setup.built, data)
    for batch in evaluation_loader(evaluation_set(data, shown), batch_size=5, workers=0):
        metrics.update(all_knowing(data, batch["target"]), batch["target"])
    scores = metrics.scores()
    assert (scores["mAP"], scores["AP50"], scores["AR100"]) == pytest.approx((1, 1, 1), abs=1e-6)
    assert {"APs"} == scores.keys() & {"APs", "APm", "APl"}  # squares of 18 to 30 pixels, whatever the model sees
    assert metrics.thresholds() == pytest.approx({"red": 0.9, "blue": 0.9}, abs=1e-4)
    assert metrics.details()["thresholds"]["red"]["f1"] == 1.0


def test_a_missed_image_is_counted(scenes: Path) -> None:
    setup = set_up(scenes)
    data = setup.training.train_set.data
    metrics = DetectionEvaluation(setup.built, data)
    for batch in evaluation_loader(evaluation_set(data, setup.preprocessing), batch_size=1, workers=0):
        outputs = all_knowing(data, batch["target"])
        if batch["target"][0]["image_id"] == len(data) - 1:
            outputs = [{key: value[:0] for key, value in outputs[0].items()}]
        metrics.update(outputs, batch["target"])
    assert 0 < metrics.scores()["AR100"] < 1


def test_batches_do_not_change_what_is_detected(scenes: Path) -> None:
    setup = set_up(scenes, "fcos", data={"tile": 48, "tile_overlap": 16})
    setup.built.model.score_thresh = 0.0
    setup.built.model.eval()
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in ((64, 96), (40, 30), (90, 60))]
    together = detect(setup.built, pictures, setup.preprocessing, CPU, batch_size=3)
    for picture, one in zip(pictures, together, strict=True):
        alone = detect(setup.built, [picture], setup.preprocessing, CPU, batch_size=100)[0]
        assert len(one["boxes"]) == len(alone["boxes"]) > 0
        assert torch.allclose(one["scores"], alone["scores"], atol=1e-4)
        assert (one["boxes"][:, 2:] <= torch.tensor([picture.shape[1], picture.shape[0]]) + 1e-3).all()


def test_each_class_has_its_threshold() -> None:
    found = {
        "boxes": torch.zeros(4, 4),
        "labels": torch.tensor([0, 0, 1, 1]),
        "scores": torch.tensor([0.3, 0.5, 0.3, 0.5]),
    }
    kept = keep(found, [0.5, 0.25])
    assert kept["labels"].tolist() == [0, 1, 1]


def test_a_wholly_trained_pretrained_detector_is_built_as_its_weights_were() -> None:
    path = Path("run/model.safetensors")
    ready = DetectorSection(name="fasterrcnn_resnet50_fpn")
    assert TASK.without_base(ready, path).checkpoint == path  # BatchNorm's eps is then that of the weights
    assert TASK.without_base(ready.model_copy(update={"pretrained": False}), path).checkpoint is None
    over = DetectorSection(name="fcos", backbone="test_resnet", checkpoint=Path("base.pth"))
    assert (TASK.without_base(over, path).checkpoint, TASK.without_base(over, path).pretrained) == (None, False)


def test_anchors_of_a_config_are_the_models() -> None:
    anchors = {"sizes": [[8.0], [20.0]], "aspect_ratios": [[0.5, 2.0], [0.5, 2.0]]}
    section = {"name": "retinanet", "backbone": "test_resnet", "pretrained": False, "levels": [3, 4]}
    built = TASK.build(DetectorSection.model_validate({**section, "anchors": anchors}), ["a"])
    assert built.model.anchor_generator.sizes == ((8.0,), (20.0,))  # type: ignore[union-attr]
    assert built.model.anchor_generator.aspect_ratios == ((0.5, 2.0), (0.5, 2.0))  # type: ignore[union-attr]


def test_fitted_anchors_need_a_model_with_anchors(scenes: Path) -> None:
    with pytest.raises(InputError, match="model.anchors=fit needs retinanet"):
        TASK.set_up(make_detection_config(scenes, Path("unused"), {"name": "fcos", "anchors": "fit"}))


def test_a_damaged_preprocessing_is_refused() -> None:
    with pytest.raises(InputError, match="preprocessing"):
        DetectorInput.from_dict({"sizes": 3})
