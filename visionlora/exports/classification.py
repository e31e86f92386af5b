"""What an export needs to know of classifiers."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from visionlora.config import ClassificationConfig
from visionlora.data.classification.split import load_split
from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.exports.dense import difference as difference
from visionlora.exports.dense import run as run
from visionlora.exports.parity import Outputs

OUTPUTS = ("logits",)


def validation_images(config: ClassificationConfig) -> list[Path]:
    """The run's. Raises InputError if they can't be read."""
    return load_split(config.data, config.train.seed).val.paths


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
