"""YOLO without a data.yaml, and label lines of other dialects."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.annotation_sets import boxes, kinds, write_image, write_yolo
from visionlora.data.annotations.layouts import examine_annotations, read_annotations
from visionlora.data.annotations.yolo import read_yolo
from visionlora.data.checks.check_data import check
from visionlora.errors import InputError

LINE = "0 0.333333 0.375 0.333333 0.25\n"
NAMES = "van\ncar\n"


def image_and_labels(image: Path, labels: Path, text: str = LINE) -> None:
    write_image(image, sum(map(ord, str(image))))
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text(text)


def labelimg(folder: Path) -> None:
    image_and_labels(folder / "1.jpg", folder / "1.txt")
    (folder / "classes.txt").write_text("\ufeff" + NAMES.replace("\n", "\r\n"))


def label_studio(folder: Path) -> None:
    image_and_labels(folder / "images" / "1.jpg", folder / "labels" / "1.txt")
    (folder / "classes.txt").write_text(NAMES)
    (folder / "notes.json").write_text(json.dumps({"categories": [{"id": 0, "name": "van"}], "info": {}}))


def notes_alone(folder: Path) -> None:
    label_studio(folder)
    (folder / "classes.txt").unlink()
    names = [{"id": 0, "name": "van"}, {"id": 1, "name": "car"}]
    (folder / "notes.json").write_text(json.dumps({"categories": names}))


def darknet(folder: Path) -> None:
    """As CVAT's "YOLO 1.1"."""
    image_and_labels(folder / "obj_train_data" / "a" / "1.jpg", folder / "obj_train_data" / "a" / "1.txt")
    (folder / "train.txt").write_text("data/obj_train_data/a/1.jpg\n")
    (folder / "obj.names").write_text(NAMES)
    (folder / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")


def darknet_below(folder: Path) -> None:
    darknet(folder / "data")


def roboflow_darknet(folder: Path) -> None:
    image_and_labels(folder / "train" / "1.jpg", folder / "train" / "1.txt")
    (folder / "train" / "_darknet.labels").write_text(NAMES)


def no_yaml(folder: Path) -> None:
    image_and_labels(folder / "train" / "images" / "1.JPG", folder / "train" / "labels" / "1.txt")
    (folder / "classes.txt").write_text(NAMES)


def any_yaml(folder: Path) -> None:
    image_and_labels(folder / "images" / "train" / "1.jpg", folder / "labels" / "train" / "1.txt")
    (folder / "car park.yaml").write_text("train: images/train\nnames: [van, car]\n")


LAYOUTS = [labelimg, label_studio, notes_alone, darknet, darknet_below, roboflow_darknet, no_yaml, any_yaml]


@pytest.mark.parametrize("make", LAYOUTS)
def test_folders_as_tools_leave_them(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    reading = examine_annotations(tmp_path)
    assert (reading.layout, reading.faults) == ("yolo", [])
    assert (reading.data.classes, boxes(reading)) == (["van", "car"], [[(10, 10, 30, 20)]])
    assert check(tmp_path).layout == "yolo"


def test_folders_above_the_data_have_no_say(tmp_path: Path) -> None:
    labelimg(tmp_path / "images" / "2024")
    assert boxes(examine_annotations(tmp_path / "images" / "2024")) == [[(10, 10, 30, 20)]]


def test_parts_are_folders_in_either_order(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        image_and_labels(tmp_path / "a" / "images" / part / "1.jpg", tmp_path / "a" / "labels" / part / "1.txt")
        image_and_labels(tmp_path / "b" / part / "images" / "1.jpg", tmp_path / "b" / part / "labels" / "1.txt")
    for name in "ab":
        (tmp_path / name / "classes.txt").write_text(NAMES)
        reading = examine_annotations(tmp_path / name)
        assert [image.fields for image in reading.data.images] == [{"part": "train"}, {"part": "val"}]
        assert read_annotations(tmp_path / name, part="val").counts() == [1, 0]


def test_labels_without_names_are_named(tmp_path: Path) -> None:
    label_studio(tmp_path)
    (tmp_path / "classes.txt").unlink(), (tmp_path / "notes.json").unlink()
    with pytest.raises(InputError, match=r"and no file in it says what the classes are called; write a classes.txt"):
        check(tmp_path)


@pytest.mark.parametrize(("name", "path"), [("coco128.yaml", ""), ("data.yaml", "path: ../datasets/coco128 # root\n")])
def test_the_yaml_beside_a_folder_is_named(tmp_path: Path, name: str, path: str) -> None:
    """As ultralytics lays out datasets/coco128.yaml and datasets/coco128."""
    folder = tmp_path / "coco128"
    image_and_labels(folder / "images" / "train2017" / "1.jpg", folder / "labels" / "train2017" / "1.txt")
    (tmp_path / "other.yaml").write_text("train: other\nnames: [a]\n")
    (tmp_path / name).write_text(f"{path}train: images/train2017\nnames: [van]\n")
    with pytest.raises(InputError, match=f"{tmp_path / name} does, and lies beside it: give that instead"):
        check(folder)


def test_captions_are_no_labels(tmp_path: Path) -> None:
    image_and_labels(tmp_path / "1.jpg", tmp_path / "1.txt", "a red van in the rain\n")
    with pytest.raises(InputError, match="no class folders"):
        check(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("train = train.txt\n", "has no 'names'"),
        ("names = obj.names\n", "has none of train, val, test"),
        ("names = x.names\ntrain = train.txt\n", "x.names: no such file"),
    ],
)
def test_an_obj_data_that_cannot_be_used_is_refused(tmp_path: Path, data: str, message: str) -> None:
    darknet(tmp_path)
    (tmp_path / "obj.data").write_text(data)
    with pytest.raises(InputError) as caught:
        read_annotations(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "kind", "message", "objects"),
    [
        ("0.0 0.333333 0.375 0.333333 0.25", "assumed", "the class is written '0.0': 0 is taken", 1),
        ("0,0.333333,0.375,0.333333,0.25", "wrong-columns", "has commas between its columns", 1),
        ("0, 0.333333, 0.375, 0.333333, 0.25", "not-a-number", "", 0),
        ("0 20 15 20 10", "not-normalised", "these look like pixels", 0),
        ("2 0.5 0.5 0.2 0.2", "unknown-class", "are they counted from 1 here?", 0),
        ("0 0.5 0.5 0.2 0.2 0.93", "wrong-columns", "a sixth is the score of a prediction", 0),
    ],
)
def test_lines_of_other_dialects(tmp_path: Path, line: str, kind: str, message: str, objects: int) -> None:
    reading = read_yolo(write_yolo(tmp_path, line))
    assert kinds(reading.faults) == [kind]
    assert message in reading.faults[0].message
    assert boxes(reading)[0] == [(10, 10, 30, 20)] * objects


def test_keypoints_are_passed_over_where_the_yaml_tells_of_them(tmp_path: Path) -> None:
    yaml = "train: images/train\nval: images/val\nnames: [van, car]\nkpt_shape: [2, 3]\n"
    reading = read_yolo(write_yolo(tmp_path, LINE.strip() + " 0.4 0.4 2 0.5 0.5 1", yaml))
    assert (reading.faults, boxes(reading)[0]) == ([], [(10, 10, 30, 20)])


def test_rotated_boxes_are_told(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, "0 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4")
    (tmp_path / "labels" / "val" / "3.txt").write_text("")
    reading = read_yolo(path)
    assert kinds(reading.faults) == ["rotated"]
    assert "rotated boxes (OBB)" in reading.faults[0].message


def test_other_words_for_val_are_read(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, yaml="train: images/train\nvalid: images/val\nnames: [van, car]\n")
    reading = read_yolo(path)
    assert [image.fields["part"] for image in reading.data.images] == ["train", "train", "val"]
    assert kinds(reading.faults) == ["assumed"]


def test_two_parts_with_the_same_images_are_one(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, yaml="train: images/train\nval: images/train\nnames: [van, car]\n")
    reading = read_yolo(path)
    assert [image.fields["part"] for image in reading.data.images] == ["train", "train"]
    assert kinds(reading.faults) == ["same-part"]
    assert len(read_yolo(path, part="val").data) == 2


@pytest.mark.parametrize(
    "given",
    [
        "/home/ann/set/images/{}",
        "C:\\\\set\\\\images\\\\{}",
        "images\\\\{}",
        "../images/{}",
        "set/images/{}",
        "./images/{}/",
    ],
)
def test_paths_of_another_machine_are_taken_by_their_end(tmp_path: Path, given: str) -> None:
    yaml = f'train: "{given.format("train")}"\nval: "{given.format("val")}"\nnames: [van, car]\n'
    reading = read_yolo(write_yolo(tmp_path, yaml=yaml))
    assert set(kinds(reading.faults)) <= {"other-path"}
    assert [image.path.name for image in reading.data.images] == ["1.jpg", "2.jpg", "3.jpg"]


def test_a_part_to_test_on_may_be_missing(tmp_path: Path) -> None:
    """Roboflow names one whether or not it was exported."""
    yaml = "train: ../images/train\nval: ../images/val\ntest: ../test/images\nnames: [van, car]\n"
    reading = read_yolo(write_yolo(tmp_path, yaml=yaml))
    assert kinds(reading.faults) == ["other-path", "other-path", "missing-part"]
    assert len(reading.data) == 3
