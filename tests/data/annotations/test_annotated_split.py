"""Which annotated images a config trains and validates on."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.annotation_sets import box, entry, write_image, write_voc, write_yolo
from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.split import choose_part, load_annotated_split, read_annotated
from visionlora.data.segmentation.split import load_segmented_split
from visionlora.errors import InputError
from visionlora.sections import SegmentationData
from visionlora.tasks.detection.config import DetectionData


def write_days(folder: Path, count: int = 10) -> Path:
    """Each image has a van, every third a car; ``day`` changes after five, ``frame`` counts backwards."""
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


def test_shots_are_so_many_training_images_at_equal_distances(days: Path) -> None:
    assert parts(annotations=days, shots=3) == ([0, 2, 5], [8, 9])
    assert parts(annotations=days, every=2, shots=2) == ([0, 4], [8, 9])
    with pytest.raises(InputError, match="data.shots is 9, and there are 8 images to train on"):
        parts(annotations=days, shots=9)


def test_what_is_held_out_is_of_the_training_images_alone(days: Path) -> None:
    assert parts(annotations=days, hold_out=True, val_fraction=0.2) == (list(range(6)), [6, 7])
    chosen = {"train": {"day": ["1"]}, "val": {"day": ["0"]}}
    assert parts(annotations=days, **chosen, hold_out=True, val_fraction=0.4) == ([5, 6, 7], [8, 9])


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


def test_several_files_are_parts_of_one_data_set(tmp_path: Path) -> None:
    """As check-data takes them: their names say which is which, and classes go by name."""
    train, val = write_days(tmp_path / "a"), write_days(tmp_path / "b", 5)
    document = json.loads(val.read_text())
    document["categories"] = [{"id": 1, "name": "van"}, {"id": 7, "name": "car"}, {"id": 9, "name": "bus"}]
    val.write_text(json.dumps(document))
    paths = [train.rename(tmp_path / "a" / "train.json"), val.rename(tmp_path / "b" / "instances_val.json")]
    split = load_annotated_split(DetectionData(annotations=paths))
    assert (len(split.train), len(split.val)) == (10, 5)
    assert split.train.classes == split.val.classes == ["van", "car", "bus"]
    assert split.train.counts() == [10, 4, 0] and split.val.counts() == [5, 2, 0]
    swapped = load_annotated_split(DetectionData(annotations=paths, train="val", val="train"))
    assert (len(swapped.train), len(swapped.val)) == (5, 10)


def test_an_image_in_two_files_is_refused(tmp_path: Path) -> None:
    path = write_days(tmp_path)
    other = tmp_path / "val.json"
    other.write_text(path.read_text())
    with pytest.raises(InputError, match="10 x same image file in two parts"):
        load_annotated_split(DetectionData(annotations=[path, other]))


def with_faults(folder: Path) -> Path:
    path = write_days(folder)
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"] = [10, 10, 0, 0]  # left out
    document["annotations"][1]["bbox"] = [50, 10, 20, 10]  # clipped
    document["images"][2]["width"] = 61  # the image is left out
    path.write_text(json.dumps(document))
    return path


def test_faults_are_passed_over_when_asked_and_told(tmp_path: Path) -> None:
    path = with_faults(tmp_path)
    with pytest.raises(InputError, match="3 faults"):
        load_annotated_split(DetectionData(annotations=path))
    split = load_annotated_split(DetectionData(annotations=path, faulty="leave_out"))
    assert names(split.train) == [0, 1, 3, 4, 5, 6, 7]
    assert split.train.images[0].objects[0].label == 1  # its van had no area
    assert split.train.images[1].objects[0].box == (50, 10, 60, 20)
    assert [line.rpartition(" -> ")[2] for line in sorted(split.faulty)] == [
        "annotation dropped",
        "clipped to the image",
        "image left out",
    ]


def test_masks_from_objects_pass_faults_over_too(tmp_path: Path) -> None:
    path = write_days(tmp_path)
    document = json.loads(path.read_text())
    for annotation in document["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    document["annotations"][0]["segmentation"] = [[1, 1]]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="polygon with less than three points"):
        load_segmented_split(SegmentationData(annotations=path))
    split = load_segmented_split(SegmentationData(annotations=path, faulty="leave_out"))
    assert len(split.faulty) == 1 and "annotation 1: a polygon has 1 points" in split.faulty[0]
    assert (len(split.train), len(split.val)) == (8, 2)


def test_crowds_are_objects_when_asked(tmp_path: Path) -> None:
    """CVAT writes each mask that was painted with iscrowd 1."""
    path = write_days(tmp_path)
    document = json.loads(path.read_text())
    for annotation in document["annotations"]:
        x, y, w, h = (int(side) for side in annotation["bbox"])
        runs = [x * 40 + y, *[h, 40 - h] * (w - 1), h]
        annotation |= {"iscrowd": 1, "segmentation": {"size": [40, 60], "counts": [*runs, 2400 - sum(runs)]}}
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"data\.crowds=objects"):
        load_annotated_split(DetectionData(annotations=path))
    split = load_annotated_split(DetectionData(annotations=path, crowds="objects"))
    assert split.train.counts() == [8, 3]
    assert split.train.has_masks
    assert load_segmented_split(SegmentationData(annotations=path, crowds="objects")).train.counts()[1] > 0


def test_what_other_tools_write_trains_as_well(tmp_path: Path) -> None:
    """A folder of LabelMe's, for boxes and for masks."""
    shapes = [{"label": "car", "points": [[10, 10], [30, 10], [30, 20]], "shape_type": "polygon"}]
    for number in range(5):
        write_image(tmp_path / f"{number}.jpg", number)
        (tmp_path / f"{number}.json").write_text(json.dumps({"shapes": shapes, "imagePath": f"{number}.jpg"}))
    split = load_annotated_split(DetectionData(annotations=tmp_path))
    assert (split.train.counts(), split.val.counts(), split.faulty) == ([4], [1], [])
    masks = load_segmented_split(SegmentationData(annotations=tmp_path))
    assert masks.train.classes == ["background", "car"]
