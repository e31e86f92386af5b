"""What is measured of pictures, against plain loops, and how it is kept."""

import json
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.street_camera import street_frame
from visionlora.data.picture_statistics import FEATURES, LEAST, PictureStatistics, evenly, measure
from visionlora.errors import InputError


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [street_frame(number, generator) for number in range(40)]


def test_features_are_what_plain_arithmetic_gives(pictures: list[np.ndarray]) -> None:
    image = pictures[3]
    red, green, blue = (image[..., channel].astype(float) for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    found = measure(image)
    scalars = dict(zip(FEATURES, found.scalars, strict=False))
    assert scalars["brightness"] == pytest.approx(luma.mean(), abs=0.5)
    assert scalars["red"] == pytest.approx((0.713 * (red - luma)).mean(), abs=0.5)
    assert scalars["blue"] == pytest.approx((0.564 * (blue - luma)).mean(), abs=0.5)
    rows, columns = image.shape[0] / 12, image.shape[1] / 16
    for row, column in ((0, 0), (5, 7), (11, 15)):
        cell = luma[
            round(row * rows) : round((row + 1) * rows), round(column * columns) : round((column + 1) * columns)
        ]
        assert found.thumb[row, column] * (scalars["contrast"] + 1) + luma.mean() == pytest.approx(cell.mean(), abs=4)
    assert abs(found.thumb.mean()) < 1e-6


def test_each_feature_follows_what_it_is_called_after(pictures: list[np.ndarray]) -> None:
    image, generator = pictures[0], np.random.default_rng(1)
    plain = dict(zip(FEATURES, measure(image).scalars, strict=False))

    def of(changed: np.ndarray) -> dict[str, float]:
        return dict(zip(FEATURES, measure(np.clip(changed, 0, 255).astype(np.uint8)).scalars, strict=False))

    assert of(image * 0.5)["brightness"] == pytest.approx(plain["brightness"] / 2, rel=0.05)
    assert of(image * 0.5 + 60)["contrast"] == pytest.approx(plain["contrast"] / 2, rel=0.05)
    assert of(cv2.GaussianBlur(image, (0, 0), 2))["sharpness"] < plain["sharpness"] - 0.5
    assert of(image + generator.normal(0, 15, image.shape))["noise"] > plain["noise"] + 1
    assert abs(of(image.mean(axis=2, keepdims=True).repeat(3, axis=2))["saturation"]) < 1 < plain["saturation"]
    # A larger picture of the same is about the same.
    large = measure(cv2.resize(image, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC))
    assert np.abs(large.thumb - measure(image).thumb).max() < 0.15


def test_statistics_are_kept_in_a_few_numbers(pictures: list[np.ndarray]) -> None:
    statistics = PictureStatistics.of(pictures)
    assert statistics is not None and statistics.images == 40
    text = json.dumps(statistics.to_dict())
    assert len(text) < 4000
    again = PictureStatistics.from_dict(json.loads(text))
    seen = [measure(one) for one in pictures[:9]]
    assert np.allclose(again.off(seen), statistics.off(seen), atol=0.01)
    assert np.allclose(again.limit, statistics.limit, rtol=1e-4) and (again.limit >= 4).all()
    features = np.array([measure(one).scalars for one in pictures])
    assert np.allclose(statistics.mean[:-1], features.mean(axis=0))
    assert np.allclose((statistics.deviation[:-1] - features.std(axis=0)) > 0, True)
    assert PictureStatistics.of(pictures[: LEAST - 1]) is None


def test_a_tenth_of_the_set_never_lies_beyond_the_limits() -> None:
    """Even where the set changes its look half way."""
    generator = np.random.default_rng(2)
    pictures = [street_frame(number, generator) for number in range(60)]
    pictures[30:] = [(one * 0.4).astype(np.uint8) for one in pictures[30:]]
    statistics = PictureStatistics.of(pictures)
    assert statistics is not None
    for start in range(0, 60, 6):
        off = statistics.off([measure(one) for one in pictures[start : start + 6]])
        assert (np.abs(off) < statistics.limit).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("mean"),
        lambda values: values.update(thumb=[1.0, 2.0]),
        lambda values: values.update(limit=[0.0] * len(FEATURES)),
        lambda values: values.update(texture=[float("nan")] * 24),
        lambda values: values.update(mean=[[], "x"]),
        lambda values: values.update(images="many"),
    ],
)
def test_damaged_statistics_are_refused(pictures: list[np.ndarray], change: Any) -> None:
    statistics = PictureStatistics.of(pictures)
    assert statistics is not None
    values = statistics.to_dict()
    change(values)
    with pytest.raises(InputError, match="train or recalibrate again"):
        PictureStatistics.from_dict(values)
    with pytest.raises(InputError):
        PictureStatistics.from_dict([])


def test_few_of_many_are_taken_evenly() -> None:
    assert evenly(5) == [0, 1, 2, 3, 4]
    places = evenly(1000, 10)
    assert len(places) == 10 and places[0] == 0 and places[-1] == 999
    steps = np.diff(places)
    assert steps.max() - steps.min() <= 1
