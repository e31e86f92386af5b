"""COCO as other tools write it: what can't be mistaken is read with a remark, what can is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.annotation_sets import box, boxes, kinds, write_coco, write_image
from visionlora.data.annotations.annotated import Polygons
from visionlora.data.annotations.coco import read_coco
from visionlora.data.annotations.layouts import examine_annotations

Document = dict[str, Any]
RING = [10, 10, 30, 10, 30, 20, 10, 20]
PAIRS = [[10, 10], [30, 10], [30, 20], [10, 20]]
POINTS = [{"x": x, "y": y} for x, y in PAIRS]
RUNS = {"size": [40, 60], "counts": [410, *[10, 30] * 19, 10, 1220]}


def put(annotation: Any) -> Callable[[Document], object]:
    return lambda document: document["annotations"].__setitem__(0, annotation)


def without_bbox(**more: Any) -> dict[str, Any]:
    return {key: value for key, value in box(1, **more).items() if key != "bbox"}


READ: dict[str, Any] = {
    "bbox as an object": box(1, bbox={"x": 10, "y": 10, "width": 20, "height": 10}),
    "no bbox": without_bbox(segmentation=[RING]),
    "bbox null": box(1, bbox=None, segmentation=[RING]),
    "bbox empty": box(1, bbox=[], segmentation=[RING]),
    "no bbox, run lengths": without_bbox(segmentation=RUNS),
    "points in pairs": box(1, segmentation=[PAIRS]),
    "points as objects": box(1, segmentation=[POINTS]),
    "one ring of pairs": box(1, segmentation=PAIRS),
    "one flat ring": box(1, segmentation=RING),
    "a list of run lengths": box(1, segmentation=[RUNS]),
    "category as text": box(1, category="1"),
    "image as text": box(1, image="1"),  # type: ignore[arg-type]
    "category as a float": box(1, category=1.0),
}


@pytest.mark.parametrize("case", READ)
def test_what_is_clear_is_read_with_a_remark(tmp_path: Path, case: str) -> None:
    reading = read_coco(write_coco(tmp_path, put(READ[case])))
    assert kinds(reading.faults) == ([] if case == "category as a float" else ["assumed"])
    thing = reading.data.images[0].objects[0]
    assert thing.box == (10, 10, 30, 20)
    assert reading.data.classes[thing.label] == "van"
    if isinstance(thing.mask, Polygons):
        assert thing.mask.rings == (tuple(map(float, RING)),)


def as_text(document: Document) -> None:
    for category in document["categories"]:
        category["id"] = str(category["id"])
    for image in document["images"]:
        image["id"] = str(image["id"])


def test_ids_as_text_on_one_side_are_the_same_ids(tmp_path: Path) -> None:
    reading = read_coco(write_coco(tmp_path, as_text))
    assert kinds(reading.faults) == ["assumed", "assumed"]
    assert (reading.data.classes, reading.data.counts()) == (["van", "car"], [1, 1])


def test_classes_come_in_the_order_of_their_numbers_and_words_after_them(tmp_path: Path) -> None:
    categories = [{"id": key, "name": f"class {key}"} for key in ("b", "10", 9, "a")]
    reading = read_coco(write_coco(tmp_path, lambda d: d.update(categories=categories, annotations=[])))
    assert reading.data.classes == ["class 9", "class 10", "class b", "class a"]


@pytest.mark.parametrize(
    ("names", "used", "left"),
    [
        ((("cars-x7", "none"), ("car", "cars-x7")), [1], ["car"]),
        ((("car", "none"), ("car", "car")), [1], ["car"]),
        ((("cars", "none"), ("car", "cars")), [0, 1], ["cars", "car"]),  # it is used: a class like others
        ((("bus", "none"), ("car", "none")), [1], ["bus", "car"]),  # not used, and no group
    ],
)
def test_roboflows_class_of_the_group_is_left_out(
    tmp_path: Path, names: tuple[tuple[str, str], ...], used: list[int], left: list[str]
) -> None:
    categories = [{"id": n, "name": name, "supercategory": above} for n, (name, above) in enumerate(names)]
    annotations = [box(n, category=category) for n, category in enumerate(used)]
    change = {"categories": categories, "annotations": annotations}
    reading = read_coco(write_coco(tmp_path, lambda document: document.update(change)))
    assert reading.data.classes == left
    assert kinds(reading.faults).count("unused-class") == 2 - len(left)
    assert sum(reading.data.counts()) == len(used)


NAMED: dict[str, tuple[Any, str, str]] = {
    "no class": (box(1, category=None), "unknown-class", "the category is null"),
    "another key": (
        {"id": 1, "item_id": 1, "category_id": 1, "bbox": [10, 10, 20, 10]},
        "malformed",
        "has no 'image_id' (there is 'item_id'); add it",
    ),
    "neither": (without_bbox(), "malformed", "has no 'bbox'; add it"),
    "an object of other keys": (box(1, bbox={"left": 1, "top": 1}), "malformed", "it should be a list of numbers"),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_is_not_clear_is_an_error(tmp_path: Path, case: str) -> None:
    annotation, kind, message = NAMED[case]
    reading = read_coco(write_coco(tmp_path, put(annotation)))
    assert kinds(reading.faults) == [kind]
    assert message in reading.faults[0].message and reading.faults[0].is_error


def test_ids_counted_from_one_are_suspected(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "van"}, {"id": 1, "name": "car"}]
    reading = read_coco(
        write_coco(tmp_path, lambda d: d.update(categories=categories, annotations=[box(1, category=2)]))
    )
    assert "are they counted from 1 here?" in reading.faults[0].message


def many(folder: Path, make: Callable[[int], tuple[float, ...]], count: int = 8) -> list[str]:
    document = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 60, "height": 40} for n in range(count)],
        "annotations": [box(n, image=n, bbox=make(n)) for n in range(count)],
        "categories": [{"id": 1, "name": "van"}],
    }
    for n in range(count):
        write_image(folder / f"{n}.jpg", n)
    (folder / "a.json").write_text(json.dumps(document))
    return kinds(examine_annotations(folder / "a.json").faults)


def test_boxes_that_look_like_corners_are_a_remark(tmp_path: Path) -> None:
    corners = many(tmp_path / "corners", lambda n: (15 + n, 10, 50 + n, 30))
    assert "corners" in corners and "box-partly-outside" in corners
    assert many(tmp_path / "fitting", lambda n: (20, 15, 39 + n % 2, 24 + n % 2)).count("corners") == 1
    assert many(tmp_path / "sound", lambda n: (5 + 5 * n, 20, 15, 10)) == []
    assert many(tmp_path / "large", lambda n: (1, 1, 50, 35)) == []  # large, and inside


def test_run_lengths_that_are_crowds_all_over_are_a_remark(tmp_path: Path) -> None:
    def crowds(document: Document) -> None:
        document["annotations"] = [box(1, segmentation=RUNS, iscrowd=1)]

    reading = examine_annotations(write_coco(tmp_path, crowds))
    assert kinds(reading.faults) == ["crowd", "crowd-masks"]
    assert "data.crowds=objects" in reading.faults[1].message
    one_of_many = write_coco(tmp_path, lambda d: d["annotations"].append(box(3, segmentation=RUNS, iscrowd=1)))
    assert kinds(examine_annotations(one_of_many).faults) == ["crowd", "repeated-object"]
    assert boxes(examine_annotations(one_of_many))[0][2] == (10, 10, 30, 20)
