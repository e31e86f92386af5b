"""A trained classifier at work: on images, and on labelled images."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from visionlora.data.classification.dataset import LabelledImages
from visionlora.data.classification.transforms import eval_transform
from visionlora.data.loading import ClassificationDataset
from visionlora.tasks.classification.metrics import Metrics
from visionlora.tasks.classification.task import loader_over, predict_labels
from visionlora.training.evaluation import evaluate
from visionlora.training.trained import Trained


@dataclass(frozen=True)
class Prediction:
    """One image, and its best classes with their probabilities, best first."""

    path: Path
    labels: list[tuple[str, float]]


@torch.no_grad()
def predict(
    trained: Trained,
    paths: Sequence[Path],
    top: int = 5,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """Classify images, in order.

    Raises:
        InputError: an image can't be read.
    """
    device = device or torch.device("cpu")
    model = trained.model.to(device)
    unlabelled = LabelledImages(list(paths), [()] * len(paths), trained.classes, multilabel=True)
    dataset = ClassificationDataset(unlabelled, eval_transform(trained.preprocessing), seed=0, train=False)
    found: list[Prediction] = []
    for batch in loader_over(dataset, batch_size, workers):
        labels = predict_labels(model(batch["image"].to(device)), trained.classes, trained.multilabel, top)
        indices = batch["index"].tolist()
        found += [Prediction(paths[index], best) for index, best in zip(indices, labels, strict=True)]
        if on_batch:
            on_batch(len(indices))
    return found


def score(
    trained: Trained,
    data: LabelledImages,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Metrics:
    """Evaluate on labelled images whose classes are the model's.

    Raises:
        InputError: an image can't be read.
    """
    device = device or torch.device("cpu")
    dataset = ClassificationDataset(data, eval_transform(trained.preprocessing), seed=0, train=False)
    metrics = Metrics(trained.classes, trained.multilabel, device)
    loader = loader_over(dataset, batch_size, workers)
    evaluate(trained.model.to(device), loader, metrics, device, nullcontext(), on_batch)
    return metrics
