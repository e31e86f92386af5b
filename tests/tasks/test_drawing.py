"""Labels lie inside the image and clear of each other; colours differ; what isn't marked stays as it was."""

from itertools import combinations

import numpy as np
import pytest

from visionlora.tasks import drawing
from visionlora.tasks.drawing import Mark, class_color, draw_marks
from visionlora.tasks.label_layout import place_labels

GREY = 90


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(sides.clip(min=0).prod())


def random_layout(seed: int, count: int, width: int = 960, height: int = 540) -> tuple[np.ndarray, np.ndarray]:
    """Label sizes and boxes, some of them at the edges of the image."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, (width - 40, height - 30), (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 200, (count, 2))], axis=1)
    sizes = np.stack([rng.integers(60, 140, count), np.full(count, 18)], axis=1)
    return sizes, boxes.clip(0, (width, height, width, height))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [1, 12, 60])
def test_labels_lie_inside_the_image(seed: int, count: int) -> None:
    sizes, boxes = random_layout(seed, count)
    places = place_labels(sizes, boxes, 960, 540)
    assert (places >= 0).all()
    assert (places <= (960, 540, 960, 540)).all()
    assert np.allclose(places[:, 2:] - places[:, :2], sizes)


@pytest.mark.parametrize("seed", range(10))
def test_labels_do_not_cover_each_other(seed: int) -> None:
    places = place_labels(*random_layout(seed, 20), 960, 540)
    assert all(overlap(a, b) == 0 for a, b in combinations(places, 2))


@pytest.mark.parametrize("seed", range(5))
def test_labels_stay_at_their_boxes(seed: int) -> None:
    sizes, boxes = random_layout(seed, 8)
    for place, box in zip(place_labels(sizes, boxes, 960, 540), boxes, strict=True):
        gap = np.maximum(place[:2] - box[2:], box[:2] - place[2:]).clip(min=0)
        assert np.hypot(*gap) <= 2 * 18


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((100, 100, 200, 200), (100, 80)),  # above
        ((100, 5, 200, 200), (100, 200)),  # no room above: below
        ((0, 0, 300, 300), (0, 0)),  # no room outside: inside
        ((280, 100, 300, 200), (250, 80)),  # at the right edge: moved in
    ],
)
def test_a_lone_label_has_its_place(box: tuple[int, ...], expected: tuple[int, int]) -> None:
    (place,) = place_labels(np.array([[50, 20]]), np.array([box]), 300, 300)
    assert tuple(place[:2]) == expected


def test_the_first_label_has_the_first_choice() -> None:
    box = np.array([100.0, 100, 200, 200])
    sizes = np.array([[60, 20], [80, 20]])
    places = place_labels(sizes, np.stack([box, box]), 300, 300)
    assert places[0].tolist() == [100, 80, 160, 100]
    assert overlap(places[0], places[1]) == 0


def test_colours_of_classes_differ_and_are_bright() -> None:
    colors = [class_color(label) for label in range(40)]
    assert len(set(colors)) == 40
    assert min(np.abs(np.subtract(a, b)).max() for a, b in combinations(colors[:20], 2)) >= 45
    assert min(max(color) for color in colors) >= 150


def grey(width: int = 200, height: int = 120) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def colored(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """(H, W) where the image has just this colour."""
    found: np.ndarray = (image == color).all(axis=2)
    return found


def test_a_frame_lies_on_the_boxs_pixels_and_nothing_else_changes() -> None:
    image = grey()
    drawn = draw_marks(image, [Mark((20, 30, 61, 81), (255, 0, 0))])
    assert (image == GREY).all()
    assert drawn.dtype == np.uint8
    rows, columns = np.nonzero(colored(drawn, (255, 0, 0)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 80, 20, 60)
    assert (drawn[34:77, 24:57] == GREY).all()
    outside = drawn.copy()
    outside[29:82, 19:62] = GREY
    assert (outside == GREY).all()


def test_without_marks_the_image_is_copied() -> None:
    image = grey()
    drawn = draw_marks(image, [])
    assert np.array_equal(drawn, image)
    drawn[:] = 0
    assert (image == GREY).all()


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (30, 5), (5, 30), (20, 20)])
@pytest.mark.parametrize("box", [(-50, -50, 500, 500), (3, 3, 3, 3), (600, 600, 700, 700), (-9, -9, -1, -1)])
def test_any_box_in_any_image_can_be_drawn(size: tuple[int, int], box: tuple[int, ...]) -> None:
    drawn = draw_marks(grey(*size), [Mark(box, (0, 255, 0), "a name 0.50")])
    assert drawn.shape == (size[1], size[0], 3)
    assert colored(drawn, (0, 255, 0)).any()


def label_of(drawn: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width of the only label, which has no frame: its box is a point in the corner."""
    rows, columns = np.nonzero(colored(drawn[3:, 3:], color))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize(("width", "least", "most"), [(320, 12, 20), (480, 12, 20), (960, 14, 24), (1920, 28, 48)])
def test_labels_are_legible_at_any_resolution(width: int, least: int, most: int) -> None:
    color = (255, 200, 0)
    drawn = draw_marks(grey(width, width * 9 // 16), [Mark((0, 0, 1, 1), color, "fedex_truck 0.87")])
    height, length = label_of(drawn, color)
    assert least <= height <= most
    assert 5 * height < length < 10 * height
    ink = drawn[: height + 4, : length + 4].astype(int).max(axis=2) < 60
    assert 0.05 < ink.mean() < 0.4


@pytest.mark.parametrize(("color", "ink"), [((255, 220, 90), 0), ((120, 20, 160), 255)])
def test_the_ink_contrasts_with_the_label(color: tuple[int, int, int], ink: int) -> None:
    drawn = draw_marks(grey(400, 300), [Mark((100, 100, 200, 200), color, "MMMM 0.50")])
    assert (np.abs(drawn.astype(int) - ink).max(axis=2) < 60).sum() > 20
    assert not colored(drawn, (255 - ink,) * 3).any()


def test_a_long_name_is_cut_and_its_score_stays() -> None:
    name = "a_name_that_is_far_too_long_for_such_a_small_image"
    first, second = (draw_marks(grey(), [Mark((50, 50, 90, 90), (255, 200, 0), f"{name} {s}")]) for s in (0.11, 0.88))
    assert not np.array_equal(first, second)
    same_score = draw_marks(grey(), [Mark((50, 50, 90, 90), (255, 200, 0), f"{name}_indeed 0.11")])
    assert np.array_equal(first, same_score)
    assert label_of(first, (255, 200, 0))[1] > 150


def test_names_in_other_scripts_are_drawn() -> None:
    drawn = [
        draw_marks(grey(), [Mark((50, 50, 90, 90), (255, 200, 0), f"{name} 0.50")]) for name in ("Füße", "Fuse", "авто")
    ]
    assert not any(np.array_equal(a, b) for a, b in combinations(drawn, 2))


def test_a_mask_is_translucent_and_ends_where_it_ends() -> None:
    image = grey()
    image[:, 100:] = 200
    mask = np.zeros((120, 200), dtype=bool)
    mask[40:80, 80:120] = True
    before = image.copy()
    drawn = draw_marks(image, [Mark((0, 0, 2, 2), (255, 0, 0), mask=mask)])
    assert np.array_equal(image, before)
    left, right = drawn[60, 90].tolist(), drawn[60, 110].tolist()
    assert left == [156, 54, 54]  # three fifths of 90 and two fifths of the colour
    assert right == [222, 120, 120]
    assert (drawn[40, 80:120] == (255, 0, 0)).all()
    assert np.array_equal(drawn[5:][~mask[5:]], image[5:][~mask[5:]])


def test_the_first_mark_is_on_top_but_thin_frames_are_over_all() -> None:
    box = (50, 50, 100, 100)
    drawn = draw_marks(grey(), [Mark(box, (255, 0, 0)), Mark(box, (0, 255, 0))])
    assert colored(drawn, (255, 0, 0)).any()
    assert not colored(drawn, (0, 255, 0)).any()
    drawn = draw_marks(grey(), [Mark(box, (255, 0, 0)), Mark(box, (255, 255, 255), thin=True)])
    assert colored(drawn, (255, 255, 255))[50, 50:100].all()
    assert colored(drawn, (255, 0, 0))[51, 51:99].all()


def test_a_label_that_lies_apart_is_joined_to_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    color, mark = (255, 0, 0), Mark((20, 90, 50, 110), (255, 0, 0), "name 0.50")
    drawn = draw_marks(grey(), [mark])
    assert not colored(drawn, color)[40:60].any()
    monkeypatch.setattr(drawing, "place_labels", lambda *_: np.array([[10, 10, 80, 25]]))
    drawn = draw_marks(grey(), [mark])
    assert colored(drawn, color)[25:90].any(axis=1).all()
