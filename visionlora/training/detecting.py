"""A trained detector at work: on images, and on annotated images."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.detection.tile_joining import Detections
from visionlora.tasks.detection.evaluation import DetectionEvaluation
from visionlora.tasks.detection.inference import detect, keep
from visionlora.tasks.detection.task import evaluation_loader, evaluation_set
from visionlora.training.evaluation import evaluate
from visionlora.training.trained import Trained

FALLBACK = 0.5
"""Threshold of a class for which the run suggests none: it found no object of it."""


def thresholds_of(trained: Trained, min_score: float | None = None) -> list[float]:
    """The score from which on a detection is kept, per class: ``min_score``, or else what the run suggests."""
    suggested = trained.about.get("thresholds", {})
    return [suggested.get(name, FALLBACK) if min_score is None else min_score for name in trained.classes]


def predict_detections(
    trained: Trained, images: Sequence[np.ndarray], thresholds: Sequence[float], device: torch.device
) -> list[Detections]:
    """Detect in (H, W, 3) uint8 RGB images; see `tasks.detecting.detect`. The model must be on the device."""
    return [keep(found, thresholds) for found in detect(trained.built, images, trained.preprocessing, device)]


def score_detections(
    trained: Trained,
    data: AnnotatedImages,
    batch_size: int = 8,
    workers: int = 0,
    device: torch.device | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> DetectionEvaluation:
    """Evaluate on annotated images whose classes are the model's; ``on_batch`` gets numbers of images or tiles.

    Raises:
        InputError: an image can't be read, or has no masks where the model makes some.
    """
    device = device or torch.device("cpu")
    metrics = DetectionEvaluation(trained.built, data)
    loader = evaluation_loader(evaluation_set(data, trained.preprocessing), batch_size, workers)
    evaluate(trained.model.to(device), loader, metrics, device, nullcontext(), on_batch)
    return metrics
