"""A trained segmenter at work: on images, and on images with masks."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.tasks.drawing import Color, class_color
from visionlora.tasks.segmentation.inference import over_windows, segment
from visionlora.tasks.segmentation.metrics import SegmentationMetrics
from visionlora.tasks.segmentation.task import evaluation_loader, evaluation_set
from visionlora.training.evaluation import evaluate
from visionlora.training.trained import Trained


def values_of(trained: Trained) -> list[int]:
    """The classes' values in the index masks that were trained on."""
    return [int(value) for value in trained.about.get("values", range(len(trained.classes)))]


def colors_of(trained: Trained) -> list[Color]:
    """The classes' colours, of the data that was trained on if they have some."""
    given = trained.about.get("colors") or [class_color(label) for label in range(len(trained.classes))]
    return [(int(red), int(green), int(blue)) for red, green, blue in given]


def predict_masks(trained: Trained, images: Sequence[np.ndarray], device: torch.device) -> list[np.ndarray]:
    """Classes of the pixels of (H, W, 3) uint8 RGB images; see `tasks.segmenting.segment`. The model must be there."""
    return segment(trained.model, images, trained.preprocessing, device)


def score_masks(
    trained: Trained,
    data: SegmentedImages,
    batch_size: int = 8,
    workers: int = 0,
    device: torch.device | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> SegmentationMetrics:
    """Evaluate on images with masks whose classes are the model's.

    Raises:
        InputError: an image or a mask can't be read.
    """
    device = device or torch.device("cpu")
    metrics = SegmentationMetrics(trained.classes, device=device)
    loader = evaluation_loader(evaluation_set(data, trained.preprocessing), batch_size, workers)
    predictor = over_windows(trained.model.to(device), trained.preprocessing)
    evaluate(predictor, loader, metrics, device, nullcontext(), on_batch)
    return metrics
