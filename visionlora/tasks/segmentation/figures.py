"""Pictures of a segmenter's work: class masks in colour, over their images, and the confusion of classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from PIL import Image

from visionlora.data.images import read_image
from visionlora.data.segmentation.class_map import ClassMap
from visionlora.data.segmentation.object_masks import class_mask
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.tasks.drawing import BLACK, Color, class_color
from visionlora.tasks.segmentation.inference import TrainedSegmenter, segment
from visionlora.tasks.segmentation.metrics import SegmentationMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL, _GAP, _TITLE, _LEGEND_ROW, _DPI = 480, 8, 26, 24, 100
"""Pixels of a cell's longer side, between cells, of their titles and of a row of the legend; and per inch."""

_NUMBERED = 30
"""Up to so many classes the cells of a confusion matrix hold numbers."""

_SHOWN = 4
"""Validation images in the picture of each evaluation."""
_MATRIX = 60
"""Up to so many classes the confusion matrix is drawn."""


def evaluation_figures(
    trained: TrainedSegmenter, data: SegmentedImages, metrics: SegmentationMetrics, device: torch.device
) -> "dict[str, Figure]":
    """True and found classes over some of the images, and the confusion matrix."""
    chosen = range(0, len(data), max(1, len(data) // _SHOWN))[:_SHOWN]
    pictures = [read_image(data.images[index].path) for index in chosen]
    truths = [class_mask(data, index) for index in chosen]
    found = segment(trained.model, pictures, trained.preprocessing, device)
    figures = {"masks": segmentation_figure(pictures, truths, found, trained.classes, class_colors(data.class_map))}
    if len(trained.classes) <= _MATRIX:
        figures["confusion_matrix"] = confusion_figure(metrics.confusion(), trained.classes)
    return figures


def class_colors(class_map: ClassMap) -> list[Color]:
    """The classes' own colours, or else colours that are unlike each other."""
    return list(class_map.colors or (class_color(label) for label in range(len(class_map.names))))


def colour_mask(mask: np.ndarray, colors: Sequence[Color]) -> np.ndarray:
    """(H, W) classes -> (H, W, 3) uint8; what is no class (``IGNORE``) is black."""
    return _lookup(colors)[mask]


def overlay(image: np.ndarray, mask: np.ndarray, colors: Sequence[Color], alpha: float = 0.5) -> np.ndarray:
    """Classes in colour over their image, with a dark line where one ends; what is no class shows the image alone.

    Args:
        image: (H, W, 3) uint8 RGB, left as it is.
        mask: (H, W) classes.
        colors: of the classes.
        alpha: share of the colour, 0 to 1.

    Returns:
        (H, W, 3) uint8.
    """
    blended = cv2.addWeighted(image, 1 - alpha, colour_mask(mask, colors), alpha, 0)
    pixels = np.where((mask < len(colors))[..., None], blended, image)
    border = np.zeros(mask.shape, bool)
    border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    border[1:] |= mask[1:] != mask[:-1]
    pixels[border] = (pixels[border] * (1 - alpha)).astype(np.uint8)
    return pixels


def segmentation_figure(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    classes: Sequence[str],
    colors: Sequence[Color],
) -> "Figure":
    """A row for each image: the image, the true classes over it, and the predicted ones; and what colours mean.

    Above a prediction stands the share of its pixels that are right. The legend has the classes that are shown.

    Args:
        images: N of (H, W, 3) uint8 RGB, of any sizes.
        truths, predictions: N of (H, W) classes.
        classes: their names.
        colors: of the classes.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = [
        [_scaled(image), *(overlay(_scaled(image), _scaled(mask), colors, 0.6) for mask in (true, found))]
        for image, true, found in zip(images, truths, predictions, strict=True)
    ]
    titles = [
        ("", "true", f"predicted, {_share_right(true, found, len(colors))} right")
        for true, found in zip(truths, predictions, strict=True)
    ]
    shown = sorted(
        {int(label) for mask in (*truths, *predictions) for label in np.unique(mask) if label < len(classes)}
    )
    columns = 6
    legend_height = _LEGEND_ROW * (-(-len(shown) // columns)) + 2 * _GAP
    heights = [row[0].shape[0] + _TITLE for row in rows]
    width = 3 * max([row[0].shape[1] for row in rows], default=_CELL) + 4 * _GAP
    height = sum(heights) + legend_height + _GAP
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    # Pixel for pixel, for lines that are scaled are blurred; and no axes, which take longer than what is in them.
    grid = np.full((height, width, 3), 255, np.uint8)
    top = 0
    for row, names, tall in zip(rows, titles, heights, strict=True):
        for column, (pixels, title) in enumerate(zip(row, names, strict=True)):
            h, w = pixels.shape[:2]
            left = _GAP + column * (w + _GAP)
            grid[top + _TITLE : top + _TITLE + h, left : left + w] = pixels
            place = (left + w / 2) / width, 1 - (top + _TITLE - _GAP) / height
            figure.text(*place, title, fontsize=10, ha="center", va="baseline")
        top += tall
    figure.figimage(grid)
    patches = [
        Patch(facecolor=_unit(colors[label]), edgecolor="black", label=_short(classes[label])) for label in shown
    ]
    legend = figure.legend(handles=patches, loc="lower center", ncols=columns, fontsize=10, frameon=False)
    for entry in legend.get_texts():
        entry.set_parse_math(False)
    return figure


def confusion_figure(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> "Figure":
    """A confusion matrix of pixels in per cent of each row: what becomes of the pixels of a true class."""
    from matplotlib.figure import Figure

    counts = np.array(matrix, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(3 + 0.5 * len(classes), 20)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_short(name) for name in classes]
    axis.set_xticks(range(len(classes)), names, rotation=90, parse_math=False)
    axis.set_yticks(range(len(classes)), names, parse_math=False)
    axis.set(xlabel="predicted", ylabel="true")
    axis.set_title("% of the true class's pixels", fontsize=10)
    if len(classes) <= _NUMBERED:
        for row, column in np.argwhere(counts > 0).tolist():
            color = "white" if shares[row, column] > 0.5 else "black"
            text = _percent(shares[row, column])
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    return figure


def _lookup(colors: Sequence[Color]) -> np.ndarray:
    """(256, 3) uint8."""
    table = np.full((256, 3), BLACK, np.uint8)
    table[: len(colors)] = colors
    return table


def _scaled(picture: np.ndarray) -> np.ndarray:
    """An image, or a mask of classes, at a cell's size."""
    scale = _CELL / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    how = Image.Resampling.BILINEAR if picture.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).resize(size, how))


def _share_right(true: np.ndarray, found: np.ndarray, classes: int) -> str:
    counted = true < classes
    return f"{_percent(float((true == found)[counted].mean()))}%" if counted.any() else "nothing"


def _percent(share: float) -> str:
    """Never 0 or 100 for what isn't."""
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:21]}..."


def _unit(color: Color) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255
