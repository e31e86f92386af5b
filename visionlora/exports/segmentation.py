"""What an export needs to know of segmenters."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.data.segmentation.split import load_segmented_split
from visionlora.data.segmentation.transforms import whole_image
from visionlora.exports.dense import difference as difference
from visionlora.exports.dense import run as run
from visionlora.exports.parity import Outputs
from visionlora.exports.scores import OnBatch
from visionlora.tasks.segmentation.config import SegmentationConfig
from visionlora.tasks.segmentation.inference import SegmenterInput
from visionlora.training.segmenting import score_masks
from visionlora.training.trained import Trained


def validation(config: SegmentationConfig, classes: list[str]) -> SegmentedImages:
    """The run's images. Raises InputError if they can't be read."""
    return load_segmented_split(config.data, classes).val


def paths(data: SegmentedImages) -> list[Path]:
    """The files."""
    return [image.path for image in data.images]


def score(trained: Trained, data: SegmentedImages, config: SegmentationConfig, on_batch: OnBatch) -> dict[str, float]:
    """What the model scores on the images."""
    return score_masks(trained, data, config.train.batch_size, config.data.workers, on_batch=on_batch).scores()


def to_input(image: np.ndarray, preprocessing: SegmenterInput) -> Tensor:
    """(H, W, 3) uint8 -> (3, h, w), what the model sees, or the first window of it."""
    shown = whole_image(image, preprocessing.size, preprocessing.mean, preprocessing.std)
    return shown if preprocessing.window is None else shown[:, : preprocessing.window, : preprocessing.window]


def amount(outputs: list[Outputs]) -> str:
    """In words, what of the images' outputs is compared."""
    return f"{sum(one['logits'][0].numel() for one in outputs)} pixels' logits"


def describe(about: dict[str, Any], built: Any, classes: list[str]) -> dict[str, Any]:
    """What one must know, beside classes and preprocessing, to read the outputs."""
    del built, classes
    return {key: about[key] for key in ("colors", "values") if key in about}
