"""The alarm: what befalls a camera is noticed and named, and what is as ever is not."""

import numpy as np
import pytest

from benchmarks.corruptions import CORRUPTIONS
from helpers.street_camera import street_frame
from visionlora.data.picture_statistics import PictureStatistics, measure
from visionlora.footage.drift import APART, WINDOW, DriftWatch, judge

CAUSES = {
    "night": "darker",
    "fog": "less contrast, as in fog or glare",
    "noise": "noisier",
    "blur": "blurred",
    "shifted": "moved: another view",
    "blocked": "blocked: a part shows nothing any more",
    "tinted": "another colour",
}


@pytest.fixture(scope="module")
def statistics() -> PictureStatistics:
    generator = np.random.default_rng(0)
    found = PictureStatistics.of(street_frame(number, generator) for number in range(60))
    assert found is not None
    return found


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_befalls_a_camera_is_named(statistics: PictureStatistics, name: str) -> None:
    generator = np.random.default_rng(1)
    pictures = [CORRUPTIONS[name](street_frame(100 + number, generator), generator) for number in range(WINDOW)]
    alarm = judge(statistics, [measure(one) for one in pictures])
    assert alarm is not None and alarm.off > 1
    assert alarm.cause.startswith(CAUSES[name])


def test_what_is_as_ever_is_no_alarm_and_neither_are_seven_odd_pictures(statistics: PictureStatistics) -> None:
    generator = np.random.default_rng(2)
    pictures = [measure(street_frame(200 + number, generator)) for number in range(10 * WINDOW)]
    assert [judge(statistics, pictures[start : start + WINDOW]) for start in range(0, len(pictures), WINDOW)] == [
        None
    ] * 10
    black = measure(np.zeros((128, 192, 3), np.uint8))
    assert judge(statistics, [black] * 7 + pictures[:8]) is None
    alarm = judge(statistics, [black] * WINDOW)
    assert alarm is not None and alarm.cause.startswith("blocked")


def test_an_alarm_is_told_when_it_begins_and_when_it_ends(statistics: PictureStatistics) -> None:
    generator, watch = np.random.default_rng(3), DriftWatch(statistics)
    told: list[tuple[float, str]] = []
    for tick in range(4 * 100):  # four pictures a second, of which one is looked at
        frame, seconds = street_frame(tick, generator), tick / 4
        if 40 <= seconds < 70:
            frame = CORRUPTIONS["night"](frame, generator)
        if line := watch.look(frame, seconds):
            told.append((seconds, line))
    (begins, alarm), (ends, over) = told
    assert alarm.startswith("alarm: the picture is not as in training: darker (")
    assert over == "the picture is again as in training (it was darker)"
    half = (WINDOW // 2 + 1) * APART  # of the window must be so
    assert 40 < begins <= 40 + half and 70 < ends <= 70 + half
    assert len(watch._pictures) == WINDOW
