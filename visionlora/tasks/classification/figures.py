"""Pictures of a classifier's work: images with predictions, and the confusion matrix."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.data.images import read_image
from visionlora.tasks.classification.inference import TrainedClassifier, predict_labels
from visionlora.tasks.classification.metrics import ClassificationMetrics
from visionlora.tasks.drawing import letters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD, BAD = "#1a7f37", "#b3261e"
WIDTH = 28
"""Letters that fit over an image."""
_TILE, _GAP, _LINE, _LETTERS = 200, 10, 14, 12
"""Pixels of an image's longer side, between images, of a caption's line, and of its letters."""
_SHOWN = 18
_MATRIX = 100
"""Up to so many classes the confusion matrix is drawn."""


def evaluation_figures(
    trained: TrainedClassifier, data: LabelledImages, metrics: ClassificationMetrics, device: torch.device
) -> "dict[str, Figure | np.ndarray]":
    """Some of the images with predictions, as pixels, and the confusion matrix."""
    figures: dict[str, Figure | np.ndarray] = {"predictions": _some_predictions(trained, data, metrics, device)}
    if not data.multilabel and len(trained.classes) <= _MATRIX:
        figures["confusion_matrix"] = confusion_figure(metrics.confusion(), trained.classes)
    return figures


def prediction_picture(images: Tensor, captions: Sequence[str], correct: Sequence[bool]) -> np.ndarray:
    """A grid of images with a caption over each, green where it is right; (H, W, 3) uint8.

    Args:
        images: (N, 3, H, W) in 0 to 1.
        captions: N, wrapped where they are wider than the image.
        correct: N.
    """
    # Without matplotlib, which takes ten times as long for so many texts over one picture.
    texts = ["\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, WIDTH)) for text in captions]
    band = _LINE * (1 + max((text.count("\n") + 1 for text in texts), default=0))
    columns = min(6, max(1, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    picture = Image.new("RGB", (columns * (_TILE + _GAP), rows * (band + _TILE)), "white")
    draw = ImageDraw.Draw(picture)
    for index, (image, text, right) in enumerate(zip(images, texts, correct, strict=True)):
        tile = Image.fromarray(_tile(image))
        top = index // columns * (band + _TILE) + band
        left = index % columns * (_TILE + _GAP) + (_GAP + _TILE - tile.width) // 2
        picture.paste(tile, (left, top))
        place, color = (left + tile.width / 2, top - 3), GOOD if right else BAD
        draw.multiline_text(place, text, color, letters(_LETTERS), anchor="md", spacing=0, align="center")
    return np.asarray(picture)


def _tile(image: Tensor) -> np.ndarray:
    """(3, H, W) in 0 to 1 -> uint8 RGB whose longer side has ``_TILE`` pixels."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()  # (H, W, 3)
    scale = _TILE / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)


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


def shown_places(images: int) -> range:
    """Places of the validation images that are in the picture of each evaluation."""
    return range(0, images, max(1, images // _SHOWN))[:_SHOWN]


def _some_predictions(
    trained: TrainedClassifier, data: LabelledImages, metrics: ClassificationMetrics, device: torch.device
) -> np.ndarray:
    chosen = shown_places(len(data))
    transform = eval_transform(trained.preprocessing)
    images = torch.stack([transform(read_image(data.paths[index])) for index in chosen])  # (n, 3, H, W)
    seen = dict(metrics.seen)
    if missing := [place for place in chosen if place not in seen]:  # another process has seen them
        with torch.no_grad():
            logits = trained.model(images[[chosen.index(place) for place in missing]].to(device)).float().cpu()
        seen |= dict(zip(missing, logits, strict=True))
    logits = torch.stack([seen[place] for place in chosen])
    predicted = predict_labels(logits, trained.classes, data.multilabel, len(trained.classes))
    captions, correct = [], []
    for index, ranked in zip(chosen, predicted, strict=True):
        truth = [trained.classes[i] for i in data.labels[index]]
        found = [name for name, share in ranked if share >= 0.5] if data.multilabel else [ranked[0][0]]
        right = sorted(found) == sorted(truth)
        captions.append(f"{', '.join(found) or 'none'}" + ("" if right else f"\n(is {', '.join(truth) or 'none'})"))
        correct.append(right)
    return prediction_picture(to_pixels(images, trained.preprocessing), captions, correct)
