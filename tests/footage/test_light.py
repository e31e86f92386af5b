"""Day, night and infrared are told apart on generated and real pictures, and on what night makes of real ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.clips import scene
from visionlora.data.video import VideoFrames
from visionlora.demo.camera import DAY, NIGHT
from visionlora.demo.scenes import make_scene
from visionlora.footage.light import light_of


def noisy(image: np.ndarray, sigma: float, coloured: bool, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape if coloured else (*image.shape[:2], 1))
    return Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8))


def grey(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) with three equal channels."""
    return np.repeat(np.asarray(Image.fromarray(image).convert("L"))[:, :, None], 3, axis=2)


PICTURES = [scene(5), scene(40, 320, 240)]


@pytest.mark.parametrize("image", PICTURES, ids=["small", "larger"])
def test_generated_pictures(image: np.ndarray) -> None:
    assert light_of(noisy(image, 8, coloured=True)) == "day"
    assert light_of(noisy(image * 0.2, 8, coloured=True)) == "night"
    assert light_of(noisy(grey(image), 8, coloured=False)) == "infrared"
    assert light_of(Image.fromarray(np.zeros_like(image))) == "night"


def test_the_demos_cameras() -> None:
    """A day camera, and a night camera that has nearly turned to infrared."""
    assert {light_of(Image.fromarray(make_scene(DAY, 0, index).image)) for index in range(6)} == {"day"}
    assert {light_of(Image.fromarray(make_scene(NIGHT, 0, index).image)) for index in range(6)} == {"infrared"}


def test_a_coloured_time_stamp_makes_no_day() -> None:
    image = grey(scene(5, 320, 240))
    image[8:20, 8:120] = (255, 255, 0)
    assert light_of(Image.fromarray(image)) == "infrared"


def real(kit: Path) -> list[Path]:
    """A frame of each day of the car park, in sun and rain."""
    folder = kit / "data" / "surveillance_lot_960"
    images = json.loads((folder / "annotations.json").read_text())["images"]
    days = {image["day"]: image["file_name"] for image in images}
    return [next(folder.rglob(Path(name).name)) for name in days.values()]


def test_the_kits_campus_by_day(kit: Path) -> None:
    frames = list(VideoFrames(kit / "data" / "pets2009_s2l1" / "vtest.avi", period=20))
    assert [light_of(Image.fromarray(frame.image)) for frame in frames] == ["day"] * 4


def test_the_kits_car_park_by_day_and_what_night_and_infrared_make_of_it(kit: Path) -> None:
    frames = [np.asarray(Image.open(path).convert("RGB")) for path in real(kit)]
    assert len(frames) == 6
    for image in frames:
        assert light_of(Image.fromarray(image)) == "day"
        assert light_of(noisy(255 * (image / 255) ** 2.2 * 0.4, 10, coloured=True)) == "night"
        assert light_of(noisy(grey(image), 10, coloured=False)) == "infrared"
        assert light_of(noisy(0.3 * grey(image), 10, coloured=False)) == "infrared"
