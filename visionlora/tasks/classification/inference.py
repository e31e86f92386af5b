"""A trained classifier at work on images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.models.classifier import Classifier
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Batch, Prediction

TrainedClassifier = Trained[Classifier, Preprocessing]

Ranked = list[tuple[str, float]]
"""Classes of an image with their probabilities, best first."""


def is_multilabel(trained: TrainedClassifier) -> bool:
    """Whether an image may have several classes."""
    return bool(trained.about.get("multilabel"))


@torch.no_grad()
def classify(
    trained: TrainedClassifier, images: Sequence[np.ndarray], top: int = 5, device: torch.device | None = None
) -> list[Ranked]:
    """The ``top`` classes of (H, W, 3) uint8 RGB images of any sizes."""
    device, transform = device or torch.device("cpu"), eval_transform(trained.preprocessing)
    logits = trained.model.to(device)(torch.stack([transform(image) for image in images]).to(device))
    return predict_labels(logits, trained.classes, is_multilabel(trained), top)


@torch.no_grad()
def logits_of(trained: TrainedClassifier, batches: Iterable[Batch], device: torch.device) -> Tensor:
    """The logits of all images of ``Task.loader``'s batches, (N, classes), on the CPU."""
    model = trained.model.to(device)
    return torch.cat([model(batch["image"].to(device)).float().cpu() for batch in batches])


def predict_labels(logits: Tensor, classes: list[str], multilabel: bool, top: int) -> list[Ranked]:
    """The ``top`` classes of each image with their probabilities, best first; logits (N, classes)."""
    scores = logits.float().sigmoid() if multilabel else logits.float().softmax(dim=1)
    best = scores.topk(min(top, len(classes)), dim=1)
    return [
        [(classes[index], value) for value, index in zip(values, indices, strict=True)]
        for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class ImageClasses(Prediction):
    """See ``tasks.protocols.Prediction``."""

    labels: Ranked

    def entries(self, image_id: str) -> list[dict[str, Any]]:
        """``image``, and ``labels``: pairs of a class and its probability, best first."""
        return [{"image": image_id, "labels": [list(label) for label in self.labels]}]

    def tally(self) -> Mapping[str, float]:
        """Class -> its probability."""
        return dict(self.labels)
