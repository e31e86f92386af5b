"""Which annotated images a config trains and validates on."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.annotation_sets import box, entry, write_image, write_voc, write_yolo
from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.split import choose_part, load_annotated_split, read_annotated
from visionlora.errors import InputError
from visionlora.tasks.detection.config import DetectionData


def write_days(folder: Path, count: int = 10) -> Path:
    """Each image has a van, every third a car; `day` changes after five, `frame` counts backwards."""
    for number in range(count):
        write_image(folder / "images" / f"{number}.jpg", number)
    images = [{**entry(n), "day": str(n // 5), "frame": count - n} for n in range(count)]
    annotations = [box(n + 1, image=n) for n in range(count)]
    annotations += [box(100 + n, image=n, bbox=(40, 5, 9, 9), category=7) for n in range(0, count, 3)]
    path = folder / "annotations.json"
    document = {"images": images, "annotations": annotations}
    path.write_text(json.dumps({**document, "categories": [{"id": 7, "name": "car"}, {"id": 1, "name": "van"}]}))
    return path


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_days(tmp_path_factory.mktemp("days"))


def names(images: AnnotatedImages) -> list[int]:
    return [int(image.path.stem) for image in images.images]


def parts(**settings: Any) -> tuple[list[int], list[int]]:
    split = load_annotated_split(DetectionData(**settings))
    return names(split.train), names(split.val)


def test_the_last_images_are_split_off_in_order(days: Path) -> None:
    assert parts(annotations=days) == (list(range(8)), [8, 9])
    assert parts(annotations=days, val_fraction=0.5, gap=2) == ([0, 1, 2, 3, 4], [7, 8, 9])
    assert parts(annotations=days, order_by="frame") == ([9, 8, 7, 6, 5, 4, 3, 2], [1, 0])


def test_fields_choose_images(days: Path) -> None:
    assert parts(annotations=days, train={"day": [1]}, val={"day": ["0"]}) == ([5, 6, 7, 8, 9], [0, 1, 2, 3, 4])
    assert parts(annotations=days, train={"day": ["1"]}, val_fraction=0.4) == ([5, 6, 7], [8, 9])
    assert parts(annotations=days, val={"day": ["0"]}) == ([5, 6, 7, 8, 9], [0, 1, 2, 3, 4])


def test_every_nth_training_image_is_taken_and_every_validation_image(days: Path) -> None:
    assert parts(annotations=days, every=3) == ([0, 3, 6], [8, 9])


def test_parts_called_train_and_val_are_found(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    assert parts(annotations=path) == ([1, 2], [3])
    assert parts(annotations=path, train="val", val="train") == ([3], [1, 2])


def test_validation_may_lie_elsewhere_and_has_the_training_classes(days: Path, tmp_path: Path) -> None:
    voc = write_voc(tmp_path)
    split = load_annotated_split(DetectionData(annotations=voc, val_annotations=days))
    assert (names(split.train), names(split.val)) == ([1, 2], list(range(10)))
    assert split.val.classes == split.train.classes == ["car", "van"]
    assert split.val.counts() == [4, 10]


def test_left_out_classes_are_background_in_both_parts(days: Path) -> None:
    split = load_annotated_split(DetectionData(annotations=days, leave_out=["car"]))
    assert split.train.classes == split.val.classes == ["van"]
    assert (split.train.counts(), split.val.counts()) == ([8], [2])


def test_an_image_in_both_parts_is_refused(days: Path) -> None:
    with pytest.raises(InputError, match=r"data\.train and data\.val both have .*5\.jpg"):
        parts(annotations=days, train={"day": ["0", "1"]}, val={"day": ["1"]})


def test_training_images_without_objects_are_refused_unless_the_classes_are_known(days: Path, tmp_path: Path) -> None:
    document = json.loads(days.read_text())
    document["annotations"] = document["annotations"][9:10]
    path = days.parent / "few.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="none of the 8 training images shows an object"):
        parts(annotations=path)
    assert len(load_annotated_split(DetectionData(annotations=path), ["van", "car"]).val) == 2


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    path = write_days(tmp_path, 5)
    (tmp_path / "images" / "2.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"2\.jpg"):
        parts(annotations=path)
    split = load_annotated_split(DetectionData(annotations=path, skip_unreadable=True))
    assert split.skipped == [tmp_path / "images" / "2.jpg"]
    assert names(split.train) + names(split.val) == [0, 1, 3, 4]


def test_a_part_is_named_or_described(days: Path) -> None:
    data = DetectionData(annotations=days, train={"day": ["1"]})
    images, _ = read_annotated(data, days)
    assert names(choose_part(data, images, "train")) == [5, 6, 7, 8, 9]
    assert names(choose_part(data, images, "frame=1,2")) == [8, 9]
    with pytest.raises(InputError, match="no image has a field 'part'"):
        choose_part(data, images, "test")


def test_annotations_must_be_given() -> None:
    with pytest.raises(InputError, match=r"give data\.annotations"):
        parts()
