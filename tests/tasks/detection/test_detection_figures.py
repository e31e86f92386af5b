"""Figures of detections tell right from wrong, and who is missed; curves are drawn as they are."""

import io

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from helpers.coco_oracle import CLASSES, Image, random_scenes
from visionlora.tasks.detection.curves import precision_recall
from visionlora.tasks.detection.figures import (
    IN_CROWD,
    RIGHT,
    TRUE,
    WRONG,
    curves_figure,
    detection_figure,
    draw_detections,
)
from visionlora.tasks.detection.metrics import DetectionMetrics
from visionlora.tasks.drawing import class_color

Color = tuple[int, int, int]


def grey(width: int = 480, height: int = 360) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def truth(boxes: list[list[float]], labels: list[int], crowd: list[int] | None = None) -> Image:
    found = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
    return found if crowd is None else {**found, "iscrowd": torch.tensor(crowd)}


def prediction(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Image:
    return {**truth(boxes, labels), "scores": torch.tensor(scores)}


def cells(figure: object) -> list[np.ndarray]:
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes]  # type: ignore[attr-defined]


def rendered(figure: object) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png")  # type: ignore[attr-defined]
    return np.asarray(Picture.open(file).convert("RGB"))


def shows(cell: np.ndarray, color: Color, box: tuple[int, int, int, int] | None = None) -> bool:
    """Whether the colour is in the cell, or goes all the way along a box there."""
    found = (cell == color).all(axis=2)
    if box is None:
        return bool(found.any())
    x1, y1, x2, y2 = box
    sides = found[y1 : y2 + 1, x1], found[y1 : y2 + 1, x2], found[y1, x1 : x2 + 1], found[y2, x1 : x2 + 1]
    return bool(np.mean(np.concatenate(sides)) > 0.9)


def one_cell(true: Image, found: Image, **options: float) -> np.ndarray:
    (cell,) = cells(detection_figure([grey()], [true], [found], CLASSES, **options))
    return cell


BOX = [100.0, 100, 200, 220]
FRAME = (101, 101, 198, 218)
"""Just inside of BOX's frame, which the thin true frame doesn't cover."""


def test_a_detection_is_right_by_place_and_class() -> None:
    found = prediction([BOX], [1], [0.9])
    right = one_cell(truth([BOX], [1]), found)
    assert shows(right, RIGHT, FRAME)
    assert not shows(right, WRONG)
    for true in (truth([BOX], [0]), truth([[150.0, 100, 250, 220]], [1]), truth([], [])):
        wrong = one_cell(true, found)
        assert shows(wrong, WRONG)
        assert not shows(wrong, RIGHT)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    other = [104.0, 104, 204, 224]
    cell = one_cell(truth([BOX], [1]), prediction([other, BOX], [1, 1], [0.8, 0.9]))
    assert shows(cell, RIGHT, FRAME)
    assert shows(cell, WRONG)
    swapped = one_cell(truth([BOX], [1]), prediction([other, BOX], [1, 1], [0.9, 0.8]))
    assert shows(swapped, RIGHT, (105, 105, 202, 222))


def test_a_detection_in_a_crowd_is_neither() -> None:
    crowd = truth([[50.0, 50, 300, 300]], [1], [1])
    cell = one_cell(crowd, prediction([BOX], [1], [0.9]))
    assert shows(cell, IN_CROWD, (100, 100, 199, 219))
    assert not shows(cell, RIGHT)
    assert not shows(cell, WRONG)


def test_true_boxes_are_shown_and_the_missed_ones_are_named() -> None:
    far = [300.0, 200, 400, 300]
    both = one_cell(truth([BOX, far], [1, 1]), prediction([BOX], [1], [0.9]))
    assert shows(both, TRUE, (100, 100, 199, 219))
    assert shows(both, TRUE, (300, 200, 399, 299))
    found, missed = (both == TRUE).all(axis=2)[:, :250].sum(), (both == TRUE).all(axis=2)[:, 250:].sum()
    assert missed > found + 500  # the label's ground


def test_detections_below_the_least_score_are_not_shown_and_take_no_object() -> None:
    found = prediction([BOX, [300.0, 200, 400, 300]], [1, 1], [0.2, 0.6])
    cell = one_cell(truth([BOX], [1]), found)
    assert not shows(cell, RIGHT)
    assert shows(cell, WRONG)
    assert shows(one_cell(truth([BOX], [1]), found, min_score=0.1), RIGHT)


def test_masks_are_drawn_over_the_image() -> None:
    masks = torch.zeros(2, 360, 480)
    masks[1, 120:200, 120:180] = 1
    found = {**prediction([[300.0, 200, 400, 300], BOX], [1, 1], [0.5, 0.9]), "masks": masks}
    cell = one_cell(truth([BOX], [1]), found)
    assert cell[160, 150].tolist() == [int(0.6 * 90 + 0.4 * value) for value in RIGHT]
    assert cell[110, 150].tolist() == [90, 90, 90]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_image_has_its_cell_pixel_for_pixel(count: int) -> None:
    predictions, targets = random_scenes(0, images=count, masks=True)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (256, 256, 3), dtype=np.uint8) for _ in range(count)]
    figure = detection_figure(images, targets, predictions, CLASSES)
    picture = rendered(figure)
    assert len(figure.axes) == count
    assert picture.shape[:2] == (round(figure.bbox.height), round(figure.bbox.width))
    for axis, cell in zip(figure.axes, cells(figure), strict=True):
        assert cell.shape == (480, 480, 3)
        corner = axis.get_window_extent()
        left, top = round(corner.x0), picture.shape[0] - round(corner.y1)
        shown = picture[top : top + 480, left : left + 480]
        assert np.abs(shown.astype(int) - cell).mean() < 1
    (legend,) = figure.legends
    extent = legend.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= picture.shape[1]
    assert extent.y0 >= max(axis.get_window_extent().y1 for axis in figure.axes)


@pytest.mark.parametrize(
    ("size", "expected"), [((960, 544), (272, 480)), ((30, 60), (480, 240)), ((480, 480), (480, 480))]
)
def test_images_of_any_size_are_scaled_with_their_boxes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    width, height = size
    box = [0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]
    figure = detection_figure([grey(*size)], [truth([box], [0])], [prediction([], [], [])], CLASSES)
    (cell,) = cells(figure)
    assert cell.shape == (*expected, 3)
    h, w = expected
    assert shows(cell, TRUE, (w // 4, h // 4, w * 3 // 4 - 1, h * 3 // 4 - 1))


def test_without_images_there_is_an_empty_figure() -> None:
    figure = detection_figure([], [], [], CLASSES)
    assert not figure.axes
    rendered(figure)


def test_what_was_found_is_drawn_in_the_colour_of_its_class() -> None:
    image = grey()
    boxes, labels, scores = np.array([BOX, [300.0, 200, 400, 300]]), np.array([0, 2]), np.array([0.5, 0.9])
    drawn = draw_detections(image, boxes, labels, scores, None, CLASSES)
    assert shows(drawn, class_color(0), (100, 100, 199, 219))
    assert shows(drawn, class_color(2), (300, 200, 399, 299))
    assert not shows(drawn, class_color(1))
    assert (image == 90).all()
    tensors = torch.tensor(boxes), torch.tensor(labels), torch.tensor(scores)
    assert np.array_equal(draw_detections(image, *tensors, None, CLASSES), drawn)
    masks = torch.zeros(2, 360, 480, dtype=torch.bool)
    masks[1, 220:260, 320:360] = True
    with_masks = draw_detections(image, *tensors, masks, CLASSES)
    assert with_masks[240, 340].tolist() == [int(0.6 * 90 + 0.4 * value) for value in class_color(2)]


def test_the_highest_score_is_on_top() -> None:
    boxes = np.array([BOX, BOX])
    for scores, top, below in (([0.5, 0.9], 2, 0), ([0.9, 0.5], 0, 2)):
        drawn = draw_detections(grey(), boxes, np.array([0, 2]), np.array(scores), None, CLASSES)
        assert shows(drawn, class_color(top), (100, 100, 199, 219))
        assert not shows(drawn, class_color(below), (100, 100, 199, 219))


def test_nothing_found_leaves_the_image() -> None:
    nothing = np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0)
    assert np.array_equal(draw_detections(grey(), *nothing, None, CLASSES), grey())
    assert np.array_equal(draw_detections(grey(), *nothing, np.zeros((0, 360, 480)), CLASSES), grey())


def test_curves_are_drawn_with_their_best_point() -> None:
    predictions, targets = random_scenes(0, images=30)
    metrics = DetectionMetrics(CLASSES)
    metrics.update(predictions, targets)
    curves = metrics.curves()
    figure = curves_figure(curves, CLASSES)
    (axis,) = figure.axes
    lines, points = axis.lines[0::2], axis.lines[1::2]
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    for label, (name, curve) in enumerate(curves.items()):
        best = curve.best
        assert best is not None
        assert np.array_equal(lines[label].get_xdata(), curve.recall)
        assert np.array_equal(lines[label].get_ydata(), curve.precision)
        assert (points[label].get_xdata()[0], points[label].get_ydata()[0]) == (best.recall, best.precision)
        assert texts[label] == f"{name}: F1 {best.f1:.2f} at {best.score:.2f}"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("recall", "precision")
    assert len({line.get_color() for line in lines}) == 3
    assert rendered(figure).std() > 10


def test_a_class_of_which_none_is_found_is_named_without_a_point() -> None:
    empty = precision_recall(np.zeros(0), np.zeros(0, dtype=bool), 3)
    figure = curves_figure({"van": empty}, CLASSES)
    assert len(figure.axes[0].lines) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["van: none found"]
    rendered(figure)


def test_of_many_classes_those_with_most_objects_are_named() -> None:
    names = [f"$class_{i}^$" for i in range(30)]
    curves = {
        name: precision_recall(np.array([0.9, 0.5]), np.array([True, False]), 1 + i) for i, name in enumerate(names)
    }
    figure = curves_figure(curves, names)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text.split(":")[0] for text in texts] == names[10:]
    assert "20 of 30 classes" in figure.legends[0].get_title().get_text()
    assert len(figure.axes[0].lines) == 60
    rendered(figure)


def test_without_curves_there_is_an_empty_plot() -> None:
    figure = curves_figure({}, CLASSES)
    assert not figure.axes[0].lines
    rendered(figure)
