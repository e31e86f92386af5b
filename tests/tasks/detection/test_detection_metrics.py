"""A detector's scores against pycocotools, and what happens where there is nothing to score."""

import pytest
import torch

from helpers.coco_oracle import CLASSES, Image, coco_verdict, random_scenes
from visionlora.errors import InputError
from visionlora.tasks.detection.metrics import DetectionMetrics

STATS = {"mAP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5, "AR100": 8}
"""Where COCOeval.stats has our scores."""


def evaluated(predictions: list[Image], targets: list[Image], masks: bool = False, batch: int = 5) -> DetectionMetrics:
    metrics = DetectionMetrics(CLASSES, masks)
    for start in range(0, len(targets), batch):
        metrics.update(predictions[start : start + batch], targets[start : start + batch])
    return metrics


def image(boxes: list[list[float]], labels: list[int], scores: list[float] | None = None) -> Image:
    found = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
    if scores is None:
        return {**found, "iscrowd": torch.zeros(len(labels), dtype=torch.int64)}
    return {**found, "scores": torch.tensor(scores)}


def assert_like_coco(metrics: DetectionMetrics, predictions: list[Image], targets: list[Image]) -> None:
    scores, per_class = metrics.scores(), metrics.per_class()
    expected: dict[str, float] = {}
    expected_classes: dict[str, dict[str, float]] = {name: {} for name in CLASSES}
    for kind, prefix in {"bbox": "", "segm": "segm_"}.items():
        if kind == "bbox" or metrics.masks:
            verdict = coco_verdict(predictions, targets, kind)
            expected |= {f"{prefix}{name}": verdict.stats[at] for name, at in STATS.items() if verdict.stats[at] >= 0}
            precision = verdict.eval["precision"]  # (IoU, recall, class, size, detections)
            for label, name in enumerate(CLASSES):
                if precision[0, 0, label, 0, -1] >= 0:
                    expected_classes[name][f"{prefix}AP"] = precision[:, :, label, 0, -1].mean()
                    expected_classes[name][f"{prefix}AP50"] = precision[0, :, label, 0, -1].mean()
    assert scores == pytest.approx(expected, abs=1e-6)
    assert per_class.keys() == {name for name, values in expected_classes.items() if values}
    for name, values in per_class.items():
        assert values == pytest.approx(expected_classes[name], abs=1e-6)


def assert_curves_like_coco(metrics: DetectionMetrics, predictions: list[Image], targets: list[Image]) -> None:
    curves = metrics.curves(metrics.masks)
    verdict = coco_verdict(predictions, targets, "segm" if metrics.masks else "bbox")
    precision, recall = verdict.eval["precision"][0, :, :, 0, -1], verdict.eval["recall"][0, :, 0, -1]
    assert curves.keys() == {name for label, name in enumerate(CLASSES) if recall[label] >= 0}
    for label, name in enumerate(CLASSES):
        if name in curves:
            curve = curves[name]
            assert curve.recall[-1] == pytest.approx(recall[label])
            for at, value in zip(verdict.params.recThrs, precision[:, label], strict=True):
                reached = curve.precision[curve.recall >= at]  # COCO takes the best precision at this recall or more
                assert (reached.max() if len(reached) else 0) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_scores_of_boxes_are_those_of_pycocotools(seed: int, crowds: bool, ties: bool) -> None:
    predictions, targets = random_scenes(seed, crowds=crowds, ties=ties)
    metrics = evaluated(predictions, targets)
    assert 0.1 < metrics.scores()["mAP"] < 0.9
    assert_like_coco(metrics, predictions, targets)


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_scores_of_masks_are_those_of_pycocotools(seed: int, crowds: bool) -> None:
    predictions, targets = random_scenes(seed, crowds=crowds, masks=True)
    metrics = evaluated(predictions, targets, masks=True)
    assert set(metrics.scores()) == set(metrics.names)
    assert metrics.scores()["segm_mAP"] != pytest.approx(metrics.scores()["mAP"], abs=1e-3)
    assert_like_coco(metrics, predictions, targets)


def test_scores_are_those_of_pycocotools_where_recall_meets_a_recall_threshold() -> None:
    # of five objects two are found, then one is wrong: recall is 0.2 and 0.4, thresholds of COCO
    boxes = [[40.0 * i, 0, 40.0 * i + 30, 30] for i in range(5)]
    targets = [image(boxes, [0] * 5)]
    predictions = [image([boxes[0], [0, 200, 30, 230], boxes[1]], [0] * 3, [0.9, 0.8, 0.7])]
    assert_like_coco(evaluated(predictions, targets), predictions, targets)


def test_more_than_a_hundred_detections_of_a_class_are_cut_as_in_coco() -> None:
    predictions, targets = random_scenes(3, images=4)
    for prediction in predictions:
        for name in prediction:
            prediction[name] = prediction[name].repeat_interleave(40, dim=0)
        prediction["boxes"] = prediction["boxes"] + torch.randn(prediction["boxes"].shape)
        prediction["boxes"][:, 2:] = torch.maximum(prediction["boxes"][:, 2:], prediction["boxes"][:, :2] + 1)
        prediction["scores"] = torch.rand(len(prediction["scores"]))
    assert max(len(prediction["labels"]) for prediction in predictions) > 300
    metrics = evaluated(predictions, targets)
    assert_like_coco(metrics, predictions, targets)
    assert_curves_like_coco(metrics, predictions, targets)


def test_the_hundred_and_first_detection_of_a_class_in_an_image_does_not_count() -> None:
    box = [0.0, 0, 50, 50]
    wrong = [[100.0, 100, 150, 150]] * 100
    prediction = image([*wrong, box], [0] * 101, [0.9] * 100 + [0.1])
    metrics = evaluated([prediction], [image([box], [0])])
    assert metrics.scores()["AP50"] == 0
    assert metrics.thresholds() == {}
    other_class = {**prediction, "labels": torch.tensor([1] * 100 + [0])}
    assert evaluated([other_class], [image([box], [0])]).thresholds().keys() == {"car"}


def test_scores_do_not_depend_on_how_images_are_batched() -> None:
    predictions, targets = random_scenes(0)
    once = evaluated(predictions, targets, batch=99).scores()
    assert evaluated(predictions, targets, batch=1).scores() == once


def test_scores_follow_further_images() -> None:
    predictions, targets = random_scenes(0)
    metrics = evaluated(predictions[:6], targets[:6])
    early = metrics.scores(), metrics.per_class()
    metrics.update(predictions[6:], targets[6:])
    assert metrics.scores() == evaluated(predictions, targets).scores() != early[0]
    assert metrics.per_class() != early[1]


def test_a_perfect_detector_has_one_everywhere() -> None:
    _, targets = random_scenes(1, images=30)
    predictions = [
        {"boxes": target["boxes"], "labels": target["labels"], "scores": torch.rand(len(target["labels"]))}
        for target in targets
    ]
    metrics = evaluated(predictions, targets)
    assert metrics.scores() == pytest.approx(dict.fromkeys(metrics.names, 1.0))
    assert metrics.per_class() == {name: pytest.approx({"AP": 1.0, "AP50": 1.0}) for name in CLASSES}


def test_without_any_image_there_is_no_score() -> None:
    metrics = DetectionMetrics(CLASSES, masks=True)
    assert (metrics.scores(), metrics.per_class(), metrics.curves(), metrics.thresholds()) == ({}, {}, {}, {})


def test_without_objects_there_is_no_score() -> None:
    predictions, targets = random_scenes(0)
    empty = [image([], []) for _ in targets]
    metrics = evaluated(predictions, empty)
    assert (metrics.scores(), metrics.per_class(), metrics.curves(), metrics.thresholds()) == ({}, {}, {}, {})


def test_a_crowd_alone_is_no_object() -> None:
    target = image([[0, 0, 100, 100]], [0])
    metrics = evaluated([image([[10, 10, 50, 50]], [0], [0.9])], [{**target, "iscrowd": torch.ones(1).long()}])
    assert (metrics.scores(), metrics.per_class(), metrics.curves()) == ({}, {}, {})


@pytest.mark.parametrize("masks", [False, True])
def test_without_predictions_scores_are_zero(masks: bool) -> None:
    _, targets = random_scenes(0, images=20, masks=masks)
    none: Image = {**image([], [], []), "masks": torch.zeros(0, 256, 256, dtype=torch.bool)}
    metrics = evaluated([none] * len(targets), targets, masks)
    assert metrics.scores() == dict.fromkeys(metrics.names, 0.0)
    assert all(set(values.values()) == {0.0} for values in metrics.per_class().values())
    assert metrics.per_class().keys() == set(CLASSES) == metrics.curves(masks).keys()
    assert metrics.thresholds(masks) == {}


def test_a_class_that_is_absent_counts_in_no_mean() -> None:
    target = image([[0, 0, 50, 50], [60, 60, 110, 110]], [0, 1])
    predicted = image([[0, 0, 50, 50], [60, 60, 110, 110], [120, 120, 150, 150]], [0, 0, 2], [0.9, 0.3, 0.8])
    metrics = evaluated([predicted], [target])
    assert metrics.per_class() == {"car": {"AP": 1.0, "AP50": 1.0}, "person": {"AP": 0.0, "AP50": 0.0}}
    scores = metrics.scores()
    assert (scores["mAP"], scores["APm"]) == (0.5, 0.5)
    assert not {"APs", "APl"} & scores.keys()
    assert metrics.curves().keys() == {"car", "person"}
    assert metrics.thresholds().keys() == {"car"}


def test_classes_keep_their_names_where_the_first_is_nowhere() -> None:
    target = image([[0, 0, 50, 50], [60, 60, 110, 110]], [1, 2])
    metrics = evaluated([image([[60, 60, 110, 110]], [2], [0.9])], [target])
    assert metrics.per_class() == {"person": {"AP": 0.0, "AP50": 0.0}, "van": {"AP": 1.0, "AP50": 1.0}}
    assert {name: curve.objects for name, curve in metrics.curves().items()} == {"person": 1, "van": 1}


def test_an_image_without_objects_makes_its_detections_false_alarms() -> None:
    box = [0.0, 0, 50, 50]
    good = [image([box], [0], [0.5])], [image([box], [0])]
    assert evaluated(*good).scores()["mAP"] == 1
    with_negative = [*good[0], image([box], [0], [0.9])], [*good[1], image([], [])]
    assert evaluated(*with_negative).scores()["mAP"] == pytest.approx(0.5)


def test_half_precision_predictions_are_scored() -> None:
    predictions, targets = random_scenes(0)
    halves = [{**p, "boxes": p["boxes"].half(), "scores": p["scores"].bfloat16()} for p in predictions]
    full = [{**p, "boxes": p["boxes"].float(), "scores": p["scores"].float()} for p in halves]
    assert evaluated(halves, targets).scores() == evaluated(full, targets).scores()


def test_inputs_are_left_as_they_were() -> None:
    predictions, targets = random_scenes(0, images=3)
    before = [{name: value.clone() for name, value in item.items()} for item in (*predictions, *targets)]
    metrics = evaluated(predictions, targets)
    metrics.scores()
    for item, copy in zip((*predictions, *targets), before, strict=True):
        assert all(torch.equal(item[name], copy[name]) for name in copy)


def refused(prediction: Image, target: Image) -> str:
    metrics = DetectionMetrics(CLASSES)
    metrics.update([image([], [], [])], [image([], [])])
    with pytest.raises(InputError) as caught:
        metrics.update([prediction], [target])
    return str(caught.value)


def test_nonsense_is_refused_with_its_place() -> None:
    box, nothing = [[0.0, 0, 5, 5]], image([], [])
    assert refused(image(box, [0], [float("nan")]), nothing).startswith("predictions for image 1: a score is NaN")
    assert refused(image([[0.0, 0, float("inf"), 5]], [0], [0.5]), nothing).startswith("predictions for image 1: a box")
    assert "label 3 is none of the 3 classes" in refused(image(box * 2, [1, 3], [0.5, 0.5]), nothing)
    assert refused(image([], [], []), image(box, [-1])).startswith("objects of image 1: label -1 is none")


def test_soft_masks_are_cut_in_the_middle() -> None:
    predictions, targets = random_scenes(0, masks=True)
    soft = [{**one, "masks": 0.2 + 0.4 * one["masks"].float()} for one in predictions]
    assert evaluated(soft, targets, masks=True).scores() == evaluated(predictions, targets, masks=True).scores()


def test_masks_of_another_shape_are_refused() -> None:
    predictions, targets = random_scenes(0, images=1, masks=True)
    as_torchvision = {**predictions[0], "masks": predictions[0]["masks"][:, None]}
    with pytest.raises(ValueError, match="predictions for image 0: masks are"):
        DetectionMetrics(CLASSES, masks=True).update([as_torchvision], targets)


def test_masks_are_kept_as_run_lengths() -> None:
    predictions, targets = random_scenes(0, images=2, masks=True)
    metrics = evaluated(predictions, targets, masks=True)
    kept = metrics._metric.metric_state
    arrays = [value for values in kept.values() for value in values if isinstance(value, torch.Tensor)]
    assert sum(array.numel() for array in arrays) < 1000
    assert all(isinstance(counts, bytes) for found in kept["detection_mask"] for _, counts in found)


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_curves_pass_through_the_precision_of_pycocotools(seed: int, masks: bool, crowds: bool) -> None:
    predictions, targets = random_scenes(seed, crowds=crowds, masks=masks)
    assert_curves_like_coco(evaluated(predictions, targets, masks), predictions, targets)


def test_curves_of_masks_need_masks() -> None:
    with pytest.raises(ValueError, match="masks"):
        DetectionMetrics(CLASSES).curves(masks=True)


def test_keeping_detections_from_the_suggested_threshold_on_reaches_what_it_promises() -> None:
    predictions, targets = random_scenes(5, images=30)
    thresholds = evaluated(predictions, targets).thresholds()
    assert thresholds.keys() == set(CLASSES)
    for label, name in enumerate(CLASSES):
        suggested = thresholds[name]
        kept = []
        for prediction in predictions:
            keep = (prediction["scores"] >= suggested.score) & (prediction["labels"] == label)
            kept.append({key: value[keep] for key, value in prediction.items()})
        curve = evaluated(kept, targets).curves()[name]
        assert curve.precision[-1] == pytest.approx(suggested.precision)
        assert curve.recall[-1] == pytest.approx(suggested.recall)
        assert suggested.f1 == pytest.approx(2 / (1 / suggested.precision + 1 / suggested.recall))
        assert 0 <= curve.scores[-1] - suggested.score < 1e-4
