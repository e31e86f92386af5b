"""Pictures of a detector's work: images with boxes and masks, and precision-recall curves. Matplotlib figures."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.detection.targets import make_target
from visionlora.data.geometry import whole_view
from visionlora.data.images import read_image
from visionlora.tasks.detection.curves import Curve, match, overlaps
from visionlora.tasks.detection.evaluation import DetectionEvaluation
from visionlora.tasks.detection.inference import TrainedDetector, detect
from visionlora.tasks.drawing import Color, Mark, class_color, draw_marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT, WRONG, IN_CROWD, TRUE = (70, 205, 100), (245, 75, 65), (165, 165, 165), (255, 255, 255)
_LEGEND = {"true box": TRUE, "right": RIGHT, "wrong": WRONG, "in a crowd": IN_CROWD}

_CELL, _GAP, _HEADER, _DPI = 480, 8, 32, 100
"""Pixels of a cell's longer side, between cells and above them; and per inch."""

_NAMED_CURVES = 20

_SHOWN = 6


def evaluation_figures(
    trained: TrainedDetector, data: AnnotatedImages, metrics: DetectionEvaluation, device: torch.device
) -> "dict[str, Figure]":
    """Some of the images with true and found boxes, and the curves."""
    figures = {"detections": _some_detections(trained, data, metrics, device)}
    for name, masks in {"boxes": False, "masks": True}.items():
        if masks <= trained.built.masks and (curves := metrics.curves(masks)):
            figures[f"precision_recall_{name}"] = curves_figure(curves, trained.classes)
    return figures


def draw_detections(
    image: np.ndarray,
    boxes: Any,
    labels: Any,
    scores: Any,
    masks: Any,
    classes: Sequence[str],
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw what was found into an image, each class in its own colour, the highest scores on top.

    Args:
        image: (H, W, 3) uint8 RGB, left as it is.
        boxes: (N, 4) as x1, y1, x2, y2 in pixels of the image; arrays or tensors on the CPU, as all that follow.
        labels: (N,) indices of classes.
        scores: (N,).
        masks: (N, H, W) of 0 and 1, soft ones are cut at 0.5; or None.
        classes: their names.
        names: (N,) of the objects, written before their classes.

    Returns:
        (H, W, 3) uint8.
    """
    boxes, labels, scores = np.asarray(boxes), np.asarray(labels), np.asarray(scores)
    marks = []
    for i in np.argsort(-scores, kind="stable"):
        mask = None if masks is None else np.asarray(masks[i]) > 0.5
        text = f"{f'{names[i]} ' if names else ''}{classes[labels[i]]} {scores[i]:.2f}"
        marks.append(Mark(boxes[i].tolist(), class_color(int(labels[i])), text, mask))
    return draw_marks(image, marks)


def detection_figure(
    images: Sequence[np.ndarray],
    truths: Sequence[Mapping[str, Tensor]],
    predictions: Sequence[Mapping[str, Tensor]],
    classes: Sequence[str],
    min_score: float = 0.3,
) -> "Figure":
    """A grid of images: true boxes thin, found ones by whether they are right at IoU 0.5; who is missed is named.

    Args:
        images: N of (H, W, 3) uint8 RGB, of any sizes.
        truths: N with ``boxes`` (G, 4) in pixels, ``labels`` (G,) and perhaps ``iscrowd`` (G,).
        predictions: N with ``boxes`` (D, 4), ``labels`` (D,), ``scores`` (D,) and perhaps ``masks`` (D, H, W).
        classes: their names.
        min_score: detections with less are not shown.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    cells = [
        _cell(image, truth, prediction, classes, min_score)
        for image, truth, prediction in zip(images, truths, predictions, strict=True)
    ]
    columns = min(3, max(1, len(cells)))
    rows = math.ceil(len(cells) / columns)
    cell_width = max([cell.shape[1] for cell in cells], default=_CELL)
    cell_height = max([cell.shape[0] for cell in cells], default=_CELL)
    width, height = columns * (cell_width + _GAP) + _GAP, rows * (cell_height + _GAP) + _HEADER
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    for i, cell in enumerate(cells):
        # Pixel for pixel, for a label that is scaled is blurred.
        left = _GAP + i % columns * (cell_width + _GAP)
        bottom = height - _HEADER - i // columns * (cell_height + _GAP) - cell.shape[0]
        axis = figure.add_axes((left / width, bottom / height, cell.shape[1] / width, cell.shape[0] / height))
        axis.imshow(cell, aspect="auto")
        axis.axis("off")
    crowds = any(bool(truth["iscrowd"].any()) for truth in truths if "iscrowd" in truth)
    names = [name for name in _LEGEND if name != "in a crowd" or crowds]
    patches = [Patch(facecolor=_unit(_LEGEND[name]), edgecolor="#404040", label=name) for name in names]
    corner = (_GAP / width, 1)
    figure.legend(
        handles=patches, loc="upper left", bbox_to_anchor=corner, ncols=4, borderaxespad=0.3, frameon=False, fontsize=9
    )
    return figure


def curves_figure(curves: Mapping[str, Curve], classes: Sequence[str]) -> "Figure":
    """Precision over recall of each class, with the point of the best F1 and its score threshold.

    Args:
        curves: class name -> curve, of the classes that have objects.
        classes: all of them, for their colours.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axis = figure.subplots()
    named = sorted(curves, key=lambda name: -curves[name].objects)[:_NAMED_CURVES]
    for name, curve in curves.items():
        color = _unit(class_color(list(classes).index(name)), shade=0.8)
        text = name if len(name) <= 30 else f"{name[:27]}..."
        best = curve.best
        text += f": F1 {best.f1:.2f} at {best.score:.2f}" if best else ": none found"
        axis.plot(curve.recall, curve.precision, color=color, linewidth=1.5, label=text if name in named else None)
        if best:
            axis.plot(best.recall, best.precision, "o", color=color, markersize=7, markeredgecolor="black")
    axis.set(
        xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title="Precision and recall at IoU 0.5"
    )
    axis.grid(alpha=0.3)
    if curves:
        more = f" ({len(named)} of {len(curves)} classes)" if len(named) < len(curves) else ""
        legend = figure.legend(loc="outside right upper", title=f"best F1 and its threshold{more}", fontsize=9)
        for entry in legend.get_texts():
            entry.set_parse_math(False)
    return figure


def _cell(
    image: np.ndarray,
    truth: Mapping[str, Tensor],
    prediction: Mapping[str, Tensor],
    classes: Sequence[str],
    min_score: float,
) -> np.ndarray:
    """The image at a cell's size with everything drawn into it."""
    scale = _CELL / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    boxes, labels = truth["boxes"].cpu().numpy().reshape(-1, 4), truth["labels"].cpu().numpy()
    crowd = truth["iscrowd"].cpu().numpy() > 0 if "iscrowd" in truth else np.zeros(len(labels), dtype=bool)
    scores = prediction["scores"].float().cpu().numpy()
    order = np.argsort(-scores, kind="stable")[: int((scores >= min_score).sum())]
    found, found_labels = (prediction[name].float().cpu().numpy()[order] for name in ("boxes", "labels"))
    matched = _matched(found, found_labels, boxes, labels, crowd)
    marks = []
    for i, at in enumerate(matched.tolist()):
        color = WRONG if at < 0 else IN_CROWD if crowd[at] else RIGHT
        mask = _resized(prediction["masks"][int(order[i])], size) if "masks" in prediction else None
        marks.append(Mark(found[i] * scale, color, f"{classes[int(found_labels[i])]} {scores[order[i]]:.2f}", mask))
    for i, (box, label) in enumerate(zip(boxes, labels.tolist(), strict=True)):
        text = f"crowd of {classes[label]}" if crowd[i] else "" if i in matched else f"missed {classes[label]}"
        marks.append(Mark(box * scale, TRUE, text, thin=True))
    return draw_marks(scaled, marks)


def _matched(
    found: np.ndarray, found_labels: np.ndarray, boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray
) -> np.ndarray:
    """For each detection, best first, the index of its object or -1: (D,)."""
    matched = np.full(len(found), -1)
    for label in np.unique(found_labels):
        mine, theirs = np.flatnonzero(found_labels == label), np.flatnonzero(labels == label)
        of_class = match(overlaps(_xywh(found[mine]), _xywh(boxes[theirs]), crowd[theirs]), crowd[theirs])
        hit = of_class >= 0
        matched[mine[hit]] = theirs[of_class[hit]]
    return matched


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    corners = boxes.astype(np.float64)
    found: list[list[float]] = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    return found


def _resized(mask: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(H, W) -> a cell's (H, W), bool."""
    picture = Image.fromarray((mask.cpu().numpy() > 0.5).astype(np.uint8))
    return np.asarray(picture.resize(size, Image.Resampling.NEAREST)) > 0


def _unit(color: Color, shade: float = 1) -> tuple[float, float, float]:
    """A colour as matplotlib has it, darkened by a factor."""
    red, green, blue = color
    return red / 255 * shade, green / 255 * shade, blue / 255 * shade


def shown_indices(data: AnnotatedImages) -> list[int]:
    """Indices of the validation images that are in the picture of each evaluation: with objects, if there are any."""
    with_objects = [index for index, image in enumerate(data.images) if image.objects] or list(range(len(data.images)))
    return with_objects[:: max(1, len(with_objects) // _SHOWN)][:_SHOWN]


def _some_detections(
    trained: TrainedDetector, data: AnnotatedImages, metrics: DetectionEvaluation, device: torch.device
) -> "Figure":
    chosen = shown_indices(data)
    images = [data.images[index] for index in chosen]
    pictures = [read_image(image.path) for image in images]
    truths = [
        make_target(image.objects, whole_view(image.width, image.height, max(image.width, image.height)), False, False)
        for image in images
    ]
    seen = metrics.seen()
    if missing := [index for index in chosen if index not in seen]:  # another process has seen them
        others = [picture for index, picture in zip(chosen, pictures, strict=True) if index in missing]
        found = detect(trained.built, others, trained.preprocessing, device)
        seen = {**seen, **dict(zip(missing, found, strict=True))}
    return detection_figure(pictures, truths, [seen[index] for index in chosen], trained.classes)
