"""Objects keep their numbers, and are counted where they stand: against plain loops."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from visionlora.errors import InputError
from visionlora.footage.tracking import Tracks, import_tracking
from visionlora.footage.zones import Counting, Place, read_place

needs_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("trackers", "supervision")),
    reason="trackers and supervision, the extra track, are not installed",
)


def boxes_at(*corners: tuple[float, float], side: float = 20) -> np.ndarray:
    return np.array([[x, y, x + side, y + side] for x, y in corners], np.float32).reshape(-1, 4)


@needs_packages
def test_objects_keep_their_numbers_in_any_order_and_over_a_gap() -> None:
    generator, tracks = np.random.default_rng(0), Tracks(fps=10)
    numbers: dict[int, set[int | None]] = {0: set(), 1: set()}
    for frame in range(40):
        if 20 <= frame < 24:  # nothing is found for 0.4 s
            assert tracks.update(boxes_at(), np.zeros(0), frame / 10) == []
            continue
        corners = [(5.0 * frame, 10.0), (300 - 5.0 * frame, 80.0)]
        order = generator.permutation(2)
        scores = np.array([0.9, 0.1])[order]  # what is little sure has passed its threshold
        found = tracks.update(boxes_at(*(corners[one] for one in order)), scores, frame / 10)
        for one, number in zip(order.tolist(), found, strict=True):
            if frame not in (0, 24):
                numbers[one].add(number)
    assert all(len(found) == 1 and None not in found for found in numbers.values())
    assert numbers[0] != numbers[1]


@needs_packages
def test_an_object_that_was_long_away_is_another() -> None:
    tracks = Tracks(fps=10)
    found = [tracks.update(boxes_at((50, 50)), np.ones(1), seconds)[0] for seconds in (0.0, 0.1, 0.2, 5.0, 5.1, 5.2)]
    assert found[:1] == [None] and found[1] == found[2] != found[5] is not None
    # Of one frame in two seconds, five may be missing.
    slow = Tracks(fps=0.5)
    found = [slow.update(boxes_at((50, 50)), np.ones(1), seconds)[0] for seconds in (0.0, 2.0, 4.0, 12.0, 14.0)]
    assert found[1] == found[2] == found[4] is not None


def inside(point: tuple[float, float], polygon: tuple[tuple[int, int], ...]) -> bool:
    """By the crossings of a ray to the right."""
    x, y = point
    edges = zip(polygon, (*polygon[1:], polygon[0]), strict=True)
    crossings = [(y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1) for (x1, y1), (x2, y2) in edges]
    return sum(crossings) % 2 == 1


@needs_packages
def test_a_zone_counts_who_stands_in_it() -> None:
    zones = [
        Place("yard", ((20, 20), (160, 40), (140, 150), (30, 120))),
        Place("gate", ((100, 10), (190, 10), (190, 90))),
    ]
    counting, generator = Counting(zones, [], (200, 160)), np.random.default_rng(1)
    most = dict.fromkeys(("yard", "gate"), 0)
    for frame in range(30):
        corners = generator.uniform(0, 140, (6, 2))
        found, crossed = counting.update(boxes_at(*map(tuple, corners), side=10), None, frame / 10)
        for name, polygon in ((zone.name, zone.points) for zone in zones):
            expected = [inside((x + 5, y + 10), polygon) for x, y in corners]
            counted = [name in names for names in found]
            # A pixel along the border may be either.
            assert sum(a != b for a, b in zip(expected, counted, strict=True)) <= 1
            assert counting.counts[name].now == sum(counted)
            most[name] = max(most[name], sum(counted))
        assert crossed == [{}] * 6
    assert {name: count.most for name, count in counting.counts.items()} == most
    assert counting.counts["yard"].entered == 0  # without tracks nobody knows


@needs_packages
def test_who_comes_into_a_zone_is_counted_once_until_long_away() -> None:
    counting = Counting([Place("yard", ((0, 0), (100, 0), (100, 100), (0, 100)))], [], (200, 200))
    for seconds, x, one in ((0, 50, 7), (1, 150, 7), (2, 50, 7), (3, 50, 8), (20, 150, 7), (30, 50, 7)):
        counting.update(boxes_at((x, 50)), [one], seconds)
    assert counting.counts["yard"].entered == 3  # 7, 8, and 7 after 28 s
    assert counting.summary() == ["zone yard: 1 at last, 1 at most, 3 came in"]
    assert len(counting.counts["yard"].inside) == 1  # and nobody is remembered for ever


@needs_packages
def test_a_line_counts_who_crosses_it_and_which_way() -> None:
    counting = Counting([], [Place("gate", ((0, 100), (200, 100)))], (200, 200))
    ways: list[dict[str, str]] = []
    for frame in range(20):
        y = 150 - 8 * frame  # feet from 170 up to 18
        boxes = boxes_at((20, y), (90, 170 - y), (150, y))
        _, crossed = counting.update(boxes, [0, 1, None], frame / 10)
        ways += crossed
        assert crossed[2] == {}  # it has no number yet
    assert [way for way in ways if way] in ([{"gate": "in"}, {"gate": "out"}], [{"gate": "out"}, {"gate": "in"}])
    assert counting.crossings() == {"gate": (1, 1)}
    assert counting.summary() == ["line gate: 1 in, 1 out"]


def test_places_are_read_or_refused_in_one_line() -> None:
    assert read_place("gate=1,2,30,40", "--line") == Place("gate", ((1, 2), (30, 40)))
    for text, option, said in (
        ("gate", "--line", "is not NAME="),
        ("=1,2,3,4", "--line", "is not NAME="),
        ("gate=1,2,x,4", "--line", "is not NAME="),
        ("gate=1,2,3", "--line", "is not NAME="),
        ("gate=1,2,1,2", "--line", "two different points"),
        ("gate=1,2,3,4,5,6", "--line", "two different points"),
        ("yard=0,0,9,9", "--zone", "three corners"),
        ("yard=0,0,5,5,9,9", "--zone", "three corners"),
    ):
        with pytest.raises(InputError, match=said):
            read_place(text, option)


@needs_packages
def test_places_that_can_not_be_in_the_picture_are_refused() -> None:
    line = Place("gate", ((0, 0), (300, 10)))
    with pytest.raises(InputError, match="'gate' lies outside of the picture's 200 x 200 pixels"):
        Counting([], [line], (200, 200))
    with pytest.raises(InputError, match="two zones or lines are called 'gate'"):
        Counting([], [line, line], (400, 400))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(InputError, match=r"pip install visionlora\[track\]"):
        import_tracking()


@needs_packages
def test_a_days_objects_are_not_remembered() -> None:
    tracks = Tracks(fps=10)
    counting = Counting(
        [Place("yard", ((0, 0), (200, 0), (200, 200), (0, 200)))], [Place("gate", ((0, 100), (200, 100)))], (200, 200)
    )
    held = []
    for frame in range(600):  # each three seconds others
        boxes = boxes_at(*((20 + 40 * column, frame % 30 * 5) for column in range(4)))
        ids = tracks.update(boxes, np.ones(4), frame / 10)
        counting.update(boxes, ids, frame / 10)
        held.append((len(tracks._tracker.tracks), len(counting.counts["yard"].inside)))
    assert max(held[300:]) <= max(held[:300])
    assert len(counting._borders[0].crossing_state_history) <= 16
