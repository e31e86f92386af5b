"""Scores of a detector: COCO's by torchmetrics, and precision-recall curves with suggested thresholds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionlora.errors import InputError
from visionlora.tasks.adding import add_state, state_of
from visionlora.tasks.detection.curves import MAX_DETECTIONS, Curve, ImageResult, Threshold, class_curves
from visionlora.tasks.protocols import Scores

_SCORES = {
    "mAP": "map",
    "AP50": "map_50",
    "AP75": "map_75",
    "APs": "map_small",
    "APm": "map_medium",
    "APl": "map_large",
    "AR100": f"mar_{MAX_DETECTIONS}",
}
"""Our name -> torchmetrics'."""


class DetectionMetrics:
    """Scores of an evaluation, accumulated batch by batch.

    Everything is kept on the CPU, masks as run lengths. A score that does not exist, because there is no object of the
    size or the class, is in none of the results.

    Args:
        classes: names in the order of the labels, which count from 0; a detector's background is none of them.
        masks: whether detections and objects have masks, to be scored beside the boxes.
    """

    def __init__(self, classes: list[str], masks: bool = False) -> None:
        from torchmetrics.detection import MeanAveragePrecision

        self.classes, self.masks = classes, masks
        self._kinds = {"": "bbox_", "segm_": "segm_"} if masks else {"": ""}  # our prefix -> torchmetrics'
        self._metric = MeanAveragePrecision(
            iou_type=("bbox", "segm") if masks else "bbox",
            # torchmetrics' own are rounded to float32, which moves precision at recalls such as 1/5.
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
            max_detection_thresholds=[1, 10, MAX_DETECTIONS],
            extended_summary=True,
            backend="faster_coco_eval",
            compute_with_cache=False,
            sync_on_compute=False,  # several processes add their states up themselves
        )
        self._metric.warn_on_many_detections = False  # it counts detections of all classes, COCO those of one
        self._images = 0
        self._summary: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        """Scores that there may be; higher is better for all."""
        return [f"{prefix}{name}" for prefix in self._kinds for name in _SCORES]

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Take in a batch, one prediction and one target per image.

        Args:
            predictions: ``boxes`` (D, 4) as x1, y1, x2, y2 in pixels, ``scores`` (D,), ``labels`` (D,) int64, and with
                masks ``masks`` (D, H, W) of 0 and 1; soft ones are cut at 0.5.
            targets: ``boxes`` (G, 4), ``labels`` (G,), ``iscrowd`` (G,), and with masks ``masks`` (G, H, W).

        Raises:
            InputError: a score is NaN, a box isn't finite, or a label is none of the classes.
            ValueError: masks aren't (N, H, W).
        """
        images = range(self._images, self._images + len(predictions))
        detected = [self._plain(one, f"predictions for image {i}") for i, one in zip(images, predictions, strict=True)]
        true = [self._plain(one, f"objects of image {i}") for i, one in zip(images, targets, strict=True)]
        self._metric.update(detected, true)
        self._images += len(predictions)
        self._summary = {}

    def state(self) -> Any:
        """What was taken in."""
        return state_of(self._metric), self._images

    def add(self, state: Any) -> None:
        """Take in what others took in, of the images after one's own."""
        theirs, images = state
        add_state(self._metric, theirs)
        self._images, self._summary = self._images + images, {}

    def scores(self) -> Scores:
        """COCO's scores: AP over IoU 0.5 to 0.95, at 0.5 and 0.75 and by size, and AR; those of masks as ``segm_``."""
        summary = self._computed()
        values = {
            f"{prefix}{name}": float(summary[f"{theirs}{key}"])
            for prefix, theirs in self._kinds.items()
            for name, key in _SCORES.items()
            if summary
        }
        return {name: value for name, value in values.items() if value >= 0}

    def per_class(self) -> dict[str, Scores]:
        """Class name -> AP and AP50, and segm_AP and segm_AP50 with masks; classes without an object are left out."""
        summary = self._computed()
        found: dict[str, Scores] = {}
        # torchmetrics squeezes a single class to a scalar.
        for column, label in enumerate(summary["classes"].reshape(-1).tolist() if summary else []):
            values: Scores = {}
            for prefix, theirs in self._kinds.items():
                precision = summary[f"{theirs}precision"][:, :, column, 0, -1]  # (IoU, recall): all sizes, 100
                if (precision >= 0).all():
                    values[f"{prefix}AP"] = float(precision.mean())
                    values[f"{prefix}AP50"] = float(precision[0].mean())
            if values:
                found[self.classes[label]] = values
        return found

    def curves(self, masks: bool = False) -> dict[str, Curve]:
        """Class name -> precision and recall at IoU 0.5, of boxes or of masks; classes without an object are left out.

        In each image the 100 best detections of a class count, as in COCO's scores.
        """
        if masks and not self.masks:
            raise ValueError("curves of masks need metrics with masks")
        return class_curves(self._results(masks), self.classes)

    def thresholds(self, masks: bool = False) -> dict[str, Threshold]:
        """Class name -> the score threshold with the best F1; classes without a right detection are left out.

        It is rounded down to 4 digits: the detection whose score it is must not fall below it by another rounding.
        """
        best = {name: curve.best for name, curve in self.curves(masks).items()}
        return {
            name: replace(threshold, score=math.floor(threshold.score * 1e4) / 1e4)
            for name, threshold in best.items()
            if threshold is not None
        }

    def _plain(self, item: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """One image's tensors as torchmetrics takes them, on the CPU and checked."""
        labels = item["labels"].detach().cpu().long().reshape(-1)
        # In float64 a box keeps its corners when it becomes x, y, width, height.
        plain = {"labels": labels, "boxes": item["boxes"].detach().cpu().double().reshape(-1, 4)}
        if not plain["boxes"].isfinite().all():
            raise InputError(f"{where}: a box has a coordinate that is no finite number")
        wrong = labels[(labels < 0) | (labels >= len(self.classes))].tolist()
        if wrong:
            raise InputError(f"{where}: label {wrong[0]} is none of the {len(self.classes)} classes, counted from 0")
        if "scores" in item:
            plain["scores"] = item["scores"].detach().cpu().float().reshape(-1)
            if plain["scores"].isnan().any():
                raise InputError(f"{where}: a score is NaN, as when training has diverged; try a smaller train.lr")
        if "iscrowd" in item:
            plain["iscrowd"] = item["iscrowd"].detach().cpu().long().reshape(-1)
        if self.masks:
            if item["masks"].ndim != 3:
                raise ValueError(f"{where}: masks are {tuple(item['masks'].shape)}, and must be (N, H, W)")
            hard = item["masks"] if item["masks"].dtype == torch.bool else item["masks"] > 0.5
            plain["masks"] = hard.detach().cpu().view(torch.uint8)
        return plain

    def _computed(self) -> dict[str, Any]:
        """torchmetrics' results, empty before the first image."""
        if self._images and not self._summary:
            result = self._metric.compute()
            self._summary = {key: value for key, value in result.items() if not key.endswith("ious")}
        return self._summary

    def _results(self, masks: bool) -> Iterator[ImageResult]:
        kept = self._metric
        for i in range(self._images):
            if masks:
                shapes, true_shapes = _run_lengths(kept.detection_mask[i]), _run_lengths(kept.groundtruth_mask[i])
            else:
                shapes, true_shapes = kept.detection_box[i].tolist(), kept.groundtruth_box[i].tolist()
            yield ImageResult(
                kept.detection_labels[i].numpy(),
                kept.detection_scores[i].numpy(),
                shapes,
                kept.groundtruth_labels[i].numpy(),
                true_shapes,
                kept.groundtruth_crowds[i].numpy() > 0,
            )


def _run_lengths(masks: Any) -> list[dict[str, Any]]:
    """torchmetrics' form of an image's masks -> COCO's."""
    return [{"size": list(size), "counts": counts} for size, counts in masks]
