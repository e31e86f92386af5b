"""What an export needs to know of classifiers."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from visionlora.data.classification.dataset import LabelledImages
from visionlora.data.classification.split import load_split
from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.errors import InputError, some
from visionlora.exports.dense import difference as difference
from visionlora.exports.dense import run as run
from visionlora.exports.parity import Outputs
from visionlora.exports.scores import OnBatch
from visionlora.tasks.classification.config import ClassificationConfig
from visionlora.training.prediction import score as metrics_of
from visionlora.training.trained import Trained


def validation(config: ClassificationConfig, classes: list[str]) -> LabelledImages:
    """The run's images. Raises InputError if they can't be read."""
    found = load_split(config.data, config.train.seed).val
    if found.classes != classes:
        raise InputError(f"they have the classes {some(found.classes)}")
    return found


def paths(data: LabelledImages) -> list[Path]:
    """The files."""
    return data.paths


def score(trained: Trained, data: LabelledImages, config: ClassificationConfig, on_batch: OnBatch) -> dict[str, float]:
    """What the model scores on the images."""
    return metrics_of(trained, data, config.train.batch_size, config.data.workers, on_batch=on_batch).scores()


def to_input(image: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    """(H, W, 3) uint8 -> (3, h, w), what the model sees."""
    return eval_transform(preprocessing)(image)


def amount(outputs: list[Outputs]) -> str:
    """In words, what of the images' outputs is compared."""
    return f"{sum(one['logits'].numel() for one in outputs)} logits"


def describe(about: dict[str, Any], built: Any, classes: list[str]) -> dict[str, Any]:
    """What one must know, beside classes and preprocessing, to read the outputs."""
    del built, classes
    return {"multilabel": bool(about.get("multilabel"))}
