"""What an export needs to know of detectors."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.split import load_annotated_split
from visionlora.data.detection.transforms import DetectionEvalTransform
from visionlora.exports.parity import Outputs, detections_difference
from visionlora.exports.scores import OnBatch
from visionlora.tasks.detection.config import DetectionConfig
from visionlora.tasks.detection.inference import DetectorInput
from visionlora.training.detecting import FALLBACK, score_detections
from visionlora.training.trained import Trained


def validation(config: DetectionConfig, classes: list[str]) -> AnnotatedImages:
    """The run's images. Raises InputError if they can't be read."""
    return load_annotated_split(config.data, classes).val


def paths(data: AnnotatedImages) -> list[Path]:
    """The files, of images with objects if there are some."""
    return [image.path for image in data.images if image.objects] or [image.path for image in data.images]


def score(trained: Trained, data: AnnotatedImages, config: DetectionConfig, on_batch: OnBatch) -> dict[str, float]:
    """What the model scores on the images."""
    return score_detections(trained, data, config.train.batch_size, config.data.workers, on_batch=on_batch).scores()


def to_input(image: np.ndarray, preprocessing: DetectorInput) -> Tensor:
    """(H, W, 3) uint8 -> (3, h, w) in 0 to 1, what the model sees: of tiles the one nearest the middle."""
    places = preprocessing.windows(image.shape[1], image.shape[0])
    x1, y1, x2, y2 = places[len(places) // 2]
    return DetectionEvalTransform(preprocessing.size)(np.ascontiguousarray(image[y1:y2, x1:x2]), ())[0]


def run(model: nn.Module, image: Tensor) -> Outputs:
    """The plain model's outputs for one image (3, h, w); ``labels`` as the model counts."""
    outputs: Outputs = model([image])[0]
    return outputs


def difference(found: Outputs, expected: Outputs, image: Tensor, model: nn.Module) -> float:
    """See `parity.detections_difference`; ``model`` is torchvision's, or ours over its classes."""
    suppressing: Any = model.roi_heads if hasattr(model, "roi_heads") else model
    return detections_difference(found, expected, max(image.shape[1:]), suppressing.nms_thresh)


def amount(outputs: list[Outputs]) -> str:
    """In words, what of the images' outputs is compared."""
    return f"{sum(len(one['scores']) for one in outputs)} detections"


def describe(about: dict[str, Any], built: Any, classes: list[str]) -> dict[str, Any]:
    """What one must know, beside classes and preprocessing, to read the outputs."""
    suggested = about.get("thresholds", {})
    return {
        "thresholds": {name: suggested.get(name, FALLBACK) for name in classes},
        "model_labels": list(built.model_labels),
        "masks": built.masks,
    }
