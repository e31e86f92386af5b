"""Figures: every image under its caption, the counts in their cells, and legible when saved."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.tasks.classification.figures import BAD, GOOD, confusion_figure, prediction_picture, to_pixels


def rendered(figure: object) -> np.ndarray:
    """(H, W, 3) of the saved PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)  # type: ignore[attr-defined]
    return np.asarray(Image.open(file).convert("RGB"))


def cells(picture: np.ndarray, count: int) -> list[np.ndarray]:
    """Each image with its caption above it, (H, 210, 3)."""
    columns, rows = min(6, count), -(-count // 6)
    height = picture.shape[0] // rows
    assert picture.shape == (rows * height, columns * 210, 3)
    return [
        picture[i // columns * height :][:height, i % columns * 210 : (i % columns + 1) * 210] for i in range(count)
    ]


def has_ink(pixels: np.ndarray, color: str) -> bool:
    """Whether there is lettering of the colour, "#rrggbb"."""
    ink = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return bool((np.abs(pixels.astype(int) - ink).max(axis=-1) < 12).any())


@pytest.mark.parametrize("count", [1, 6, 7, 18])
@pytest.mark.parametrize("size", [(8, 8), (300, 400)])
def test_every_image_is_shown_under_its_caption(count: int, size: tuple[int, int]) -> None:
    images = (torch.arange(count).float() / 20).view(-1, 1, 1, 1).expand(-1, 3, *size)
    captions = [f"class {i}" for i in range(count)]
    right = [i % 2 == 0 for i in range(count)]
    shown = cells(prediction_picture(images, captions, right), count)
    other = cells(prediction_picture(images, ["else", *captions[1:]], right), count)
    for i, cell in enumerate(shown):
        caption, image = cell[:28], cell[28:]
        assert (image[4:144, 15:195] == round(i / 20 * 255)).all()
        assert has_ink(caption, GOOD) == right[i]
        assert has_ink(caption, BAD) != right[i]
        assert (caption[:, [0, 209]] == 255).all()
        assert (cell == other[i]).all() == (i > 0)


def test_without_images_there_is_an_empty_picture() -> None:
    assert (prediction_picture(torch.zeros(0, 3, 8, 8), [], []) == 255).all()


def test_a_long_caption_stays_over_its_image() -> None:
    captions = ["a very long name of a class that nobody would choose", "b\n(is another_very_long_name_of_a_class)"]
    picture = prediction_picture(torch.zeros(7, 3, 8, 8), captions + ["c"] * 5, [True, False] * 3 + [True])
    shown = cells(picture, 7)
    lines = 28 + 14 * 2  # "b" and the two lines of what it is
    assert picture.shape[0] == 2 * (lines + 200)
    for cell in shown:
        assert (cell[:, [0, 209]] == 255).all()
        assert (cell[lines:, 5:205] == 0).all()
    for cell, color in zip(shown[:2], (GOOD, BAD), strict=True):
        first, second = cell[lines - 3 - 28 : lines - 3 - 14], cell[lines - 3 - 14 : lines - 3]
        assert has_ink(first, color)
        assert has_ink(second, color)


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
    shown = cells(prediction_picture(torch.rand(3, 3, 8, 8), names, [True, False, True]), 3)
    assert all(has_ink(cell[:28], color) for cell, color in zip(shown, (GOOD, BAD, GOOD), strict=True))


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
