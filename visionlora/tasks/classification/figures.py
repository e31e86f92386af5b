"""Pictures of a classifier's work: images with predictions, and the confusion matrix. Matplotlib figures."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.data.images import read_image
from visionlora.tasks.classification.inference import TrainedClassifier, predict_labels
from visionlora.tasks.classification.metrics import ClassificationMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD, BAD = "#1a7f37", "#b3261e"
WIDTH = 22
"""Letters that fit over an image."""
_SHOWN = 18
"""Validation images in the picture of each evaluation."""
_MATRIX = 100
"""Up to so many classes the confusion matrix is drawn."""


def evaluation_figures(
    trained: TrainedClassifier, data: LabelledImages, metrics: ClassificationMetrics, device: torch.device
) -> "dict[str, Figure]":
    """Some of the images with predictions, and the confusion matrix."""
    figures = {"predictions": _some_predictions(trained, data, device)}
    if not data.multilabel and len(trained.classes) <= _MATRIX:
        figures["confusion_matrix"] = confusion_figure(metrics.confusion(), trained.classes)
    return figures


def prediction_figure(images: Tensor, captions: Sequence[str], correct: Sequence[bool]) -> "Figure":
    """A grid of images with a caption each, green where it is right.

    Args:
        images: (N, 3, H, W) in 0 to 1.
        captions: N, wrapped where they are wider than the image.
        correct: N.
    """
    from matplotlib.figure import Figure

    columns = min(6, max(1, len(images)))
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(2.1 * columns, 2.45 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    for axis, image, caption, right in zip(axes, images, captions, correct, strict=False):
        axis.imshow(image.permute(1, 2, 0).clamp(0, 1).cpu().numpy())
        lines = [line for part in caption.split("\n") for line in textwrap.wrap(part, WIDTH)]
        # A class name with a $ would otherwise be typeset as a formula, or fail as one.
        axis.set_title("\n".join(lines), fontsize=9, color=GOOD if right else BAD, parse_math=False)
    return figure


def confusion_figure(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> "Figure":
    """A confusion matrix: rows are the true classes, colours the share of the row, numbers the counts."""
    from matplotlib.figure import Figure

    counts = torch.tensor(matrix, dtype=torch.float64)  # (classes, classes)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = min(3 + 0.45 * len(classes), 20)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    names = [name if len(name) <= 30 else f"{name[:27]}..." for name in classes]
    axis.set_xticks(range(len(classes)), names, rotation=90, parse_math=False)
    axis.set_yticks(range(len(classes)), names, parse_math=False)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if len(classes) <= 30:
        for row in range(len(classes)):
            for column in range(len(classes)):
                color = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, str(int(counts[row, column])), ha="center", va="center", fontsize=8, color=color)
    return figure


def to_pixels(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Undo the normalisation: (N, 3, H, W) model input -> (N, 3, H, W) in 0 to 1."""
    mean = torch.tensor(preprocessing.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=images.device).view(3, 1, 1)
    return (images * std + mean).clamp(0, 1)


def _some_predictions(trained: TrainedClassifier, data: LabelledImages, device: torch.device) -> "Figure":
    chosen = range(0, len(data), max(1, len(data) // _SHOWN))[:_SHOWN]
    transform = eval_transform(trained.preprocessing)
    images = torch.stack([transform(read_image(data.paths[index])) for index in chosen])  # (n, 3, H, W)
    with torch.no_grad():
        logits = trained.model(images.to(device))
    predicted = predict_labels(logits, trained.classes, data.multilabel, len(trained.classes))
    captions, correct = [], []
    for index, ranked in zip(chosen, predicted, strict=True):
        truth = [trained.classes[i] for i in data.labels[index]]
        found = [name for name, share in ranked if share >= 0.5] if data.multilabel else [ranked[0][0]]
        right = sorted(found) == sorted(truth)
        captions.append(f"{', '.join(found) or 'none'}" + ("" if right else f"\n(is {', '.join(truth) or 'none'})"))
        correct.append(right)
    return prediction_figure(to_pixels(images, trained.preprocessing), captions, correct)
