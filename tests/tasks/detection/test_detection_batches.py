"""What is found in an image doesn't depend on the images beside it, nor on those before."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.detection_runs import make_detection_config, make_scenes, of_many_shapes
from helpers.tiny_detectors import accept_any_score, create, look_at_few_boxes, settle
from helpers.tiny_detectors import images as noise
from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.split import load_annotated_split
from visionlora.data.detection.transforms import DetectionEvalTransform
from visionlora.models.detector import Detector
from visionlora.tasks.detection.evaluation import evaluation_loader, evaluation_set
from visionlora.tasks.detection.inference import DetectorInput, as_alone, detect, predict_detections
from visionlora.tasks.detection.parity import detections_difference
from visionlora.tasks.detection.task import TASK
from visionlora.tasks.evaluation import score
from visionlora.tasks.models import Trained
from visionlora.tasks.outputs import TOLERANCE
from visionlora.tasks.trained import load_trained
from visionlora.training.run import train

CPU = torch.device("cpu")
CLASSES = ["lorry", "roof sign"]
SIDE = 96
CASES: list[tuple[str, dict[str, Any]]] = [
    ("retinanet", {"backbone": "test_efficientnet"}),
    ("fcos", {"backbone": "test_vit"}),
    ("faster_rcnn", {"backbone": "test_vit"}),
    ("mask_rcnn", {"backbone": "test_efficientnet"}),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", {}),
    ("ssdlite320_mobilenet_v3_large", {}),
]
"""Every kind of head, and of the ways to a size; torchvision's other detectors are these over ResNet-50."""
SIZES = ((64, 96), (33, 96), (96, 96), (96, 40), (20, 96), (64, 90), (96, 33), (50, 70))
"""Height and width of images."""


def make(name: str, **options: Any) -> Detector:
    torch.manual_seed(0)
    made = create(name, CLASSES, size=SIDE, **options)
    look_at_few_boxes(made.model)
    settle(made.model, noise(*SIZES))
    accept_any_score(made.model)
    (made.model.roi_heads if hasattr(made.model, "roi_heads") else made.model).detections_per_img = 20  # type: ignore[assignment]
    made.model.eval()
    return made


@pytest.fixture(scope="module", params=CASES, ids=[f"{name}-{options.get('backbone')}" for name, options in CASES])
def detector(request: pytest.FixtureRequest) -> Detector:
    """Not to be changed."""
    name, options = request.param
    return make(name, **options)


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    return detections_difference(found, expected, SIDE, overlap=0.5)


def but_masks(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if name != "masks"}


@torch.no_grad()
def test_a_list_gets_what_each_of_its_images_gets_alone(detector: Detector) -> None:
    transform = DetectionEvalTransform(SIDE)
    seen = [transform(picture, ())[0] for picture in pictures()]
    alone = [detector.model([image])[0] for image in seen]
    assert all(len(found["scores"]) for found in alone)
    together = as_alone(detector.model)(seen)
    assert max(map(distance, together, alone)) < TOLERANCE
    # What is to be shown: a list that torchvision pads to its largest image gives something else.
    if detector.model.transform.fixed_size is None:  # type: ignore[union-attr]
        assert max(map(distance, detector.model(seen), alone)) > TOLERANCE


@pytest.mark.parametrize("shown", [DetectorInput(SIDE), DetectorInput(SIDE, 64, 16)], ids=["whole", "tiles"])
def test_images_of_many_shapes_in_batches_of_any_size(detector: Detector, shown: DetectorInput) -> None:
    images = pictures() if shown.tile is None else pictures()[1:4]
    alone = [found for image in images for found in detect(detector, [image], shown, CPU, batch_size=1)]
    assert all(len(found["scores"]) for found in alone)
    for batch_size in (3, len(images)):
        found = detect(detector, images, shown, CPU, batch_size)
        assert max(map(distance, map(but_masks, found), map(but_masks, alone))) < TOLERANCE
        assert max(map(distance, found, alone)) < 0.01  # a mask's pixel at the threshold may be the last bit's


@pytest.mark.parametrize("name", ["faster_rcnn", "mask_rcnn", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_what_came_first_does_not_matter(name: str) -> None:
    """torchvision's pools take their scales from the first images: a narrow one, mostly padding, gives others."""
    options = {} if name.startswith("fasterrcnn_") else {"backbone": "test_efficientnet"}
    narrow, square = noise((20, 96), (96, 96))
    found = []
    for first in (narrow, square):
        torch.manual_seed(0)
        detector = create(name, CLASSES, size=SIDE, **options)
        look_at_few_boxes(detector.model)
        accept_any_score(detector.model)
        with torch.no_grad():
            detector.model.eval()([first])
            found.append(detector.model([square])[0])
    assert len(found[0]["scores"])
    assert distance(*found) < TOLERANCE


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_many_shapes(make_scenes(tmp_path_factory.mktemp("scenes"), train=12, val=12, masks=True))


def validation(scenes: Path, **data: Any) -> AnnotatedImages:
    return load_annotated_split(make_detection_config(scenes, Path("unused"), data=data).data).val


def trained_as(detector: Detector, shown: DetectorInput) -> Trained:
    return Trained("detection", detector, detector.classes, shown, Path("unused"), {})


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of batches of 4, with scores between 0 and 1. Not to be changed."""
    out = tmp_path_factory.mktemp("run") / "run"
    return train(make_detection_config(scenes, out, epochs=6, batch_size=4, evaluate_every=3), quiet=True).folder


@pytest.mark.parametrize("shown", [DetectorInput(SIDE), DetectorInput(SIDE, 48, 16)], ids=["whole", "tiles"])
def test_scores_do_not_depend_on_the_batch_size(run: Path, scenes: Path, shown: DetectorInput) -> None:
    data, trained = validation(scenes), replace(load_trained(run), preprocessing=shown)
    alone = score(trained, data, batch_size=1).scores()
    assert 0 < alone["mAP"] < 1
    for batch_size in (3, 4, 12):
        assert score(trained, data, batch_size).scores() == pytest.approx(alone, abs=1e-6, nan_ok=True)


def test_the_score_is_that_of_what_is_predicted(run: Path, scenes: Path) -> None:
    """Against each image's own prediction, scored without a loader, a batch or a group."""
    from visionlora.data.images import read_image
    from visionlora.tasks.detection.metrics import DetectionMetrics

    data, trained = validation(scenes), load_trained(run)
    metrics = DetectionMetrics(data.classes, masks=False)
    dataset = evaluation_set(data, DetectorInput(120))
    for index, image in enumerate(data.images):
        found = predict_detections(trained, [read_image(image.path)], [0.0, 0.0], CPU)[0]
        truth = {**dataset[0, index]["target"]}
        boxes = torch.tensor([thing.box for thing in image.objects]).reshape(-1, 4)
        metrics.update([found], [{**truth, "boxes": boxes}])
    expected = metrics.scores()
    found_scores = score(trained, data, batch_size=4).scores()
    assert found_scores["mAP"] == pytest.approx(expected["mAP"], abs=1e-6)
    assert found_scores["AP50"] == pytest.approx(expected["AP50"], abs=1e-6)


def test_a_runs_own_validation_gives_the_same_at_any_batch_size(run: Path, scenes: Path) -> None:
    reported = json.loads((run / "report.json").read_text())["scores"]
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(line["mAP"] for line in logged if line["kind"] == "val")
    alone = score(load_trained(run), validation(scenes), batch_size=1).scores()
    assert reported == pytest.approx(alone, abs=1e-6, nan_ok=True)
    assert best == pytest.approx(alone["mAP"], abs=1e-4)
    # What is to be shown: the same batches without the task's predictor score otherwise.
    trained, data = load_trained(run), validation(scenes)
    metrics = TASK.metrics(trained, data, CPU)
    with torch.no_grad():
        for batch in evaluation_loader(evaluation_set(data, trained.preprocessing), 12, 0):
            metrics.update(trained.model(batch["image"]), batch["target"])
    assert metrics.scores()["mAP"] != pytest.approx(alone["mAP"], abs=1e-4)


def test_masks_of_many_shapes_score_the_same_at_any_batch_size(scenes: Path) -> None:
    detector = make("mask_rcnn", backbone="test_resnet")
    scores = []
    for batch_size in (1, 12):
        data = validation(scenes)
        renamed = replace(detector, classes=data.classes)
        scores.append(score(trained_as(renamed, DetectorInput(SIDE)), data, batch_size).scores())
    assert "segm_mAP" in scores[0]
    assert scores[1] == pytest.approx(scores[0], abs=1e-6, nan_ok=True)


def test_images_of_one_shape_are_seen_in_whole_batches(scenes: Path, tmp_path: Path) -> None:
    """Neither footage of one shape nor what happens to be sorted among others costs more passes than before."""
    calls: list[list[tuple[int, ...]]] = []

    def model(images: list[Tensor]) -> list[dict[str, Tensor]]:
        calls.append([tuple(image.shape) for image in images])
        return [{} for _ in images]

    as_alone(model)([torch.zeros(3, 64, 96)] * 5)
    assert [len(call) for call in calls] == [5]
    calls.clear()
    for batch in evaluation_loader(evaluation_set(validation(scenes), DetectorInput(SIDE)), 2, 0):
        as_alone(model)(batch["image"])
    assert [len(call) for call in calls] == [2] * 6
    assert len({shape for call in calls for shape in call}) > 2


def test_the_tiles_of_an_image_stay_in_a_row(scenes: Path) -> None:
    data = validation(scenes)
    loader = evaluation_loader(evaluation_set(data, DetectorInput(SIDE, 48, 16)), 5, 0)
    owners = [target["image_id"] for batch in loader for target in batch["target"]]
    changes = sum(one != other for one, other in zip(owners, owners[1:], strict=False))
    assert changes == len(data) - 1 == len(set(owners)) - 1
