"""Masks in their colours, images that show through, and figures that say what they show."""

import io

import numpy as np
import pytest
from PIL import Image

from visionlora.data.segmentation.class_map import IGNORE, ClassEntry, make_class_map
from visionlora.tasks.segmentation.figures import (
    class_colors,
    colour_mask,
    confusion_figure,
    overlay,
    segmentation_figure,
)

COLORS = [(200, 0, 0), (0, 100, 200)]
IMAGE = np.full((6, 8, 3), 100, np.uint8)
MASK = np.zeros((6, 8), np.uint8)
MASK[:, 3:] = 1
MASK[:, 6:] = IGNORE


def rendered(figure: object) -> np.ndarray:
    """(H, W, 3) of the saved PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png")  # type: ignore[attr-defined]
    return np.asarray(Image.open(file).convert("RGB"))


def test_classes_have_their_colours_and_what_is_ignored_is_black() -> None:
    colored = colour_mask(MASK, COLORS)
    assert colored.dtype == np.uint8
    assert [tuple(colored[2, x]) for x in (0, 4, 7)] == [*COLORS, (0, 0, 0)]


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_an_overlay_blends_inside_classes_and_leaves_what_is_ignored(alpha: float) -> None:
    before = IMAGE.copy()
    pixels = overlay(IMAGE, MASK, COLORS, alpha)
    assert pixels[2, 1].tolist() == pytest.approx([(1 - alpha) * 100 + alpha * c for c in COLORS[0]], abs=1)
    assert pixels[2, 4].tolist() == pytest.approx([(1 - alpha) * 100 + alpha * c for c in COLORS[1]], abs=1)
    assert pixels[2, 7].tolist() == [100, 100, 100]
    assert np.array_equal(IMAGE, before)


def test_an_overlay_marks_where_a_class_ends() -> None:
    pixels = overlay(IMAGE, MASK, COLORS, 0.5).astype(int)
    assert (pixels[:, 3] < pixels[:, 4]).any(axis=1).all()
    assert pixels[:, 3].sum() < pixels[:, 4].sum()
    turned = overlay(IMAGE.transpose(1, 0, 2), MASK.T, COLORS, 0.5)
    assert np.array_equal(turned.transpose(1, 0, 2), pixels)


def test_a_figure_has_three_pictures_in_a_row_and_the_colours_that_it_shows() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, size, dtype=np.uint8) for size in ((60, 80, 3), (90, 50, 3))]
    truths = [np.zeros(image.shape[:2], np.int64) for image in images]
    truths[0][:30] = IGNORE
    predictions = [truth.copy() for truth in truths]
    predictions[0][:45] = 2  # a quarter of the image, half of what counts
    predictions[1][:] = 2
    names = ["road", "never", "a class with $ a very very long name"]
    figure = segmentation_figure(images, truths, predictions, names, [*COLORS, (0, 200, 0)])
    picture = rendered(figure)
    assert picture.shape[:2] == tuple(round(side * 100) for side in figure.get_size_inches()[::-1])
    titles = [text.get_text() for text in figure.texts]
    assert titles == ["", "true", "predicted, 50% right", "", "true", "predicted, 0% right"]
    for index, (text, (h, w)) in enumerate(zip(figure.texts, [(360, 480)] * 3 + [(480, 267)] * 3, strict=True)):
        row, column = divmod(index, 3)
        top, left = 26 + row * (360 + 26), 8 + column * (w + 8)
        cell = picture[top : top + h, left : left + w]
        scaled = np.asarray(Image.fromarray(images[row]).resize((w, h), Image.Resampling.BILINEAR))
        mask = [None, truths[row], predictions[row]][column]
        if mask is not None:
            nearest = Image.fromarray(mask.astype(np.uint8)).resize((w, h), Image.Resampling.NEAREST)
            scaled = overlay(scaled, np.asarray(nearest), [*COLORS, (0, 200, 0)], 0.6)
        assert np.array_equal(cell, scaled), titles[index]
        above = text.get_window_extent()
        assert (above.x0 + above.x1) / 2 == pytest.approx(left + w / 2, abs=1)
        assert picture.shape[0] - top <= above.y0 and above.y1 <= picture.shape[0] - top + 26
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["road", "a class with $ a very..."]
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 <= picture.shape[0] - (360 + 480 + 2 * 26)
    assert legend.x0 >= 0
    assert legend.x1 <= picture.shape[1]


def test_a_figure_of_nothing_that_counts() -> None:
    ignored = np.full((6, 8), IGNORE, np.uint8)
    figure = segmentation_figure([IMAGE], [ignored], [MASK], ["a", "b"], COLORS)
    rendered(figure)
    assert figure.texts[2].get_text() == "predicted, nothing right"
    rendered(segmentation_figure([], [], [], ["a", "b"], COLORS))


def test_the_confusion_is_in_per_cent_of_each_row() -> None:
    matrix = [[750_000, 250_000, 0], [1, 999_999, 0], [0, 0, 0]]
    figure = confusion_figure(matrix, ["$a", "b", "never"])
    (axis,) = figure.axes
    texts = {text.get_position(): text.get_text() for text in axis.texts}
    assert texts == {(0, 0): "75", (1, 0): "25", (0, 1): "<1", (1, 1): ">99"}
    shares = np.asarray(axis.images[0].get_array())
    assert shares == pytest.approx(np.array([[0.75, 0.25, 0], [1e-6, 1 - 1e-6, 0], [0, 0, 0]]))
    assert [label.get_text() for label in axis.get_yticklabels()] == ["$a", "b", "never"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    assert rendered(figure).std() > 10
    assert not confusion_figure(np.eye(31, dtype=int).tolist(), ["x"] * 31).axes[0].texts


def test_colours_are_those_of_the_file_or_all_different() -> None:
    entries = [ClassEntry("a", 0, (1, 2, 3)), ClassEntry("void", 1, (0, 0, 0)), ClassEntry("b", 2, (4, 5, 6))]
    assert class_colors(make_class_map(entries, [1])) == [(1, 2, 3), (4, 5, 6)]
    assert len(set(class_colors(make_class_map([str(i) for i in range(60)])))) == 60
