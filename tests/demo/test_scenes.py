import dataclasses

import numpy as np
import pytest
from PIL import Image

from visionlora.demo.scenes import CLASSES, DAY, NIGHT, make_scene, write_folder

CAMERAS = pytest.mark.parametrize("camera", [DAY, NIGHT], ids=lambda camera: camera.name)


@CAMERAS
def test_the_same_arguments_give_the_same_bytes(camera):
    first, again = make_scene(camera, seed=3, index=7), make_scene(camera, seed=3, index=7)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    assert (first.label, first.box) == (again.label, again.box)


def test_a_scene_does_not_depend_on_those_made_before_it():
    alone = make_scene(NIGHT, seed=1, index=20)
    for index in range(20):
        make_scene(NIGHT, seed=1, index=index)
    assert np.array_equal(make_scene(NIGHT, seed=1, index=20).image, alone.image)


@CAMERAS
def test_index_and_seed_make_other_pictures(camera):
    n = len(CLASSES)
    pictures = [make_scene(camera, seed, index).image.tobytes() for seed in (0, 1) for index in range(0, 4 * n, n)]
    assert len(set(pictures)) == len(pictures)


def test_cameras_see_other_pictures_of_the_same_class():
    day, night = make_scene(DAY, 0, 2), make_scene(NIGHT, 0, 2)
    assert day.label == night.label
    assert not np.array_equal(day.image, night.image)


@CAMERAS
def test_any_run_of_scenes_is_balanced(camera):
    labels = [make_scene(camera, 0, index).label for index in range(10, 10 + 2 * len(CLASSES))]
    assert np.bincount(labels).tolist() == [2] * len(CLASSES)


@CAMERAS
@pytest.mark.parametrize("size", [64, 96])
def test_box_and_mask_agree_with_the_label(camera, size):
    for index in range(60):
        scene = make_scene(camera, seed=5, index=index, size=size)
        assert scene.image.shape == (size, size, 3)
        assert scene.image.dtype == np.uint8
        assert scene.mask.shape == (size, size)
        assert scene.mask.dtype == bool
        if CLASSES[scene.label] == "empty":
            assert scene.box is None
            assert not scene.mask.any()
            continue
        assert scene.box is not None
        x0, y0, x1, y1 = scene.box
        assert 0 <= x0 < x1 <= size
        assert 0 <= y0 < y1 <= size
        inside = scene.mask[int(y0) : int(y1), int(x0) : int(x1)]
        assert inside.sum() == scene.mask.sum() > 0
        assert inside.any(axis=0)[[0, -1]].all()  # the box is tight
        assert inside.any(axis=1)[[0, -1]].all()


def test_the_mask_is_where_the_object_is():
    quiet = dataclasses.replace(DAY, noise=0.0, quality=100)
    empty = np.median([make_scene(quiet, 0, i).image for i in range(3, 200, 6)], axis=0)
    for index in range(1, 60, 6):  # buses
        scene = make_scene(quiet, 0, index)
        change = np.abs(scene.image - empty).mean(axis=2)
        assert change[scene.mask].mean() > 2 * change[~scene.mask].mean()


def test_night_is_darker_and_greyer_than_day():
    def darkness_and_colour(camera):
        images = np.stack([make_scene(camera, 0, index).image for index in range(6)]).astype(float)
        return images.mean(), (images.max(axis=3) - images.min(axis=3)).mean()

    (day, day_colour), (night, night_colour) = darkness_and_colour(DAY), darkness_and_colour(NIGHT)
    assert night < day
    assert night_colour < day_colour / 2


def test_write_folder_writes_one_folder_per_class_and_the_same_files_again(tmp_path):
    for name in ("a", "b"):
        write_folder(tmp_path / name, NIGHT, n_per_class=2, seed=4)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.png"))
    assert sorted({path.parent.name for path in files}) == list(CLASSES)
    assert len(files) == 2 * len(CLASSES)
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
        stored = np.asarray(Image.open(tmp_path / "a" / path))
        assert np.array_equal(stored, make_scene(NIGHT, 4, int(path.stem)).image)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        make_scene(DAY, seed=-1, index=0)
