"""Figures: every image under its caption, the counts in their cells, and legible when saved."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.tasks.classification.figures import BAD, GOOD, confusion_figure, prediction_figure, to_pixels


def rendered(figure: object) -> np.ndarray:
    """(H, W, 3) of the saved PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)  # type: ignore[attr-defined]
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("count", [0, 1, 6, 7, 18])
@pytest.mark.parametrize("size", [(8, 8), (300, 400)])
def test_every_image_is_shown_under_its_caption(count: int, size: tuple[int, int]) -> None:
    images = (torch.arange(count).float() / 20).view(-1, 1, 1, 1).expand(-1, 3, *size)
    captions = [f"class {i}" for i in range(count)]
    figure = prediction_figure(images, captions, [i % 2 == 0 for i in range(count)])
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == captions
    assert [text.get_color() for text in axis.texts] == [BAD if i % 2 else GOOD for i in range(count)]
    grid = np.asarray(axis.images[0].get_array())
    for i, text in enumerate(axis.texts):
        x, y = (round(value) for value in text.get_position())
        assert (grid[y + 4 : y + 104, x - 90 : x + 90] == round(i / 20 * 255)).all()
        assert (grid[y - 10 : y, x] == 255).all()
    assert rendered(figure).shape[2] == 3


def test_a_long_caption_stays_over_its_image() -> None:
    captions = ["a very long name of a class that nobody would choose", "b\n(is another_very_long_name_of_a_class)"]
    figure = prediction_figure(torch.rand(7, 3, 8, 8), captions + ["c"] * 5, [True, False] * 3 + [True])
    rendered(figure)
    texts = figure.axes[0].texts
    boxes = [text.get_window_extent() for text in texts]
    assert "".join(texts[0].get_text().split()) == "".join(captions[0].split())
    assert boxes[0].x1 <= boxes[1].x0
    assert boxes[0].x0 >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.width
    assert boxes[0].y1 <= figure.bbox.height


def test_the_cells_of_the_confusion_matrix_hold_the_counts() -> None:
    matrix = [[5, 1, 0], [0, 7, 2], [0, 0, 0]]
    figure = confusion_figure(matrix, ["a", "b", "never"])
    (axis,) = figure.axes
    texts = {text.get_position(): text.get_text() for text in axis.texts}
    assert texts == {(column, row): str(matrix[row][column]) for row in range(3) for column in range(3)}
    shares = np.asarray(axis.images[0].get_array())
    assert shares == pytest.approx(np.array([[5 / 6, 1 / 6, 0], [0, 7 / 9, 2 / 9], [0, 0, 0]]))
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "never"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    assert rendered(figure).std() > 10


def test_many_classes_are_shown_without_numbers() -> None:
    figure = confusion_figure(torch.eye(60, dtype=torch.int64).tolist(), [f"class {i}" for i in range(60)])
    assert not figure.axes[0].texts
    height, width, _ = rendered(figure).shape
    assert max(height, width) <= 60 * 20 + 1


def test_names_with_dollars_and_markup_are_shown_as_they_are() -> None:
    names = ["$x^$", "a_b$", "[bold]"]
    rendered(confusion_figure([[1, 0, 0]] * 3, names))
    rendered(prediction_figure(torch.rand(3, 3, 8, 8), names, [True, False, True]))


def test_pixels_are_what_they_were_before_normalisation() -> None:
    preprocessing = Preprocessing(8, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 1.0)
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    batch = eval_transform(preprocessing)(image).unsqueeze(0)
    pixels = to_pixels(batch, preprocessing)[0].permute(1, 2, 0).numpy()
    assert np.abs(pixels - image / 255).max() < 1e-6


def test_figures_need_no_display(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    confusion_figure([[1, 0], [0, 1]], ["a", "b"]).savefig(path)
    assert Image.open(path).size[0] > 100
