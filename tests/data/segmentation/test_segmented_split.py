"""Which images with masks a config trains and validates on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.annotation_sets import entry, write_image
from helpers.mask_sets import HEIGHT, WIDTH, labels, save, write_set
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.data.segmentation.split import load_segmented_split, read_segmented_part
from visionlora.errors import InputError
from visionlora.sections import SegmentationData

CLASSES = ["road", "car", "wall"]


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.yaml"
    path.write_text("[road, car, wall]")
    return path


def names(images: SegmentedImages) -> list[str]:
    return [image.path.stem for image in images.images]


def parts(**settings: Any) -> tuple[list[str], list[str]]:
    split = load_segmented_split(SegmentationData(**settings))
    return names(split.train), names(split.val)


def refusal(**settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_segmented_split(SegmentationData(**settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_polygons(root: Path, count: int = 6, masks: bool = True) -> Path:
    """A van in each image, a car in the first three."""
    for number in range(count):
        write_image(root / "images" / f"{number}.jpg", number)
    annotations = []
    for number in range(count):
        for category in [1, 7][: 2 if number < 3 else 1]:
            x = 5 + 2 * category
            ring = [x, 5, x + 8, 5, x + 8, 13, x, 13]
            box = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": [x, 5, 8, 8]}
            annotations.append({**box, "iscrowd": 0, **({"segmentation": [ring]} if masks else {})})
    images = [{**entry(n), "day": str(n // 3)} for n in range(count)]
    path = root / "annotations.json"
    categories = [{"id": 1, "name": "van"}, {"id": 7, "name": "car"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.mark.parametrize("layout", ["{part}/images {part}/masks", "images/{part} masks/{part}", "{part} {part}annot"])
def test_parts_of_known_layouts_are_found(tmp_path: Path, classes: Path, layout: str) -> None:
    root = tmp_path / "set"
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        images, masks = write_set(tmp_path / part, count)
        for folder, place in zip((images, masks), layout.format(part=part).split(), strict=True):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            folder.rename(root / place)
    assert parts(root=root, classes=classes) == (["0", "1", "2", "3"], ["0", "1"])
    assert parts(root=root, classes=classes, val="test", every=2) == (["0", "2"], ["0", "1", "2"])
    held = parts(root=root, classes=classes, val="test", hold_out=True, val_fraction=0.25, shots=2)
    assert held == (["0", "1"], ["3"])
    data = SegmentationData(root=root, classes=classes, val="test")
    for part, count in (("train", 4), ("val", 3), ("test", 3)):
        images_of_part, skipped = read_segmented_part(data, part, CLASSES)
        assert (len(images_of_part), skipped) == (count, [])
    with pytest.raises(InputError, match=r"no part tset with masks \(did you mean 'test'\?\)"):
        read_segmented_part(data, "tset", CLASSES)


def test_without_parts_the_last_images_are_split_off_in_order(tmp_path: Path, classes: Path) -> None:
    images, masks = write_set(tmp_path / "set", 10)
    expected = ([str(n) for n in range(8)], ["8", "9"])
    assert parts(root=tmp_path / "set", classes=classes) == expected
    assert parts(images=images, masks=masks, classes=classes) == expected
    chosen = parts(images=images, masks=masks, classes=classes, val_fraction=0.5, gap=2, every=2)
    assert chosen == (["0", "2", "4"], ["7", "8", "9"])
    assert len(read_segmented_part(SegmentationData(root=tmp_path / "set", classes=classes), "all", CLASSES)[0]) == 10


def test_fastais_list_says_what_validates(tmp_path: Path, classes: Path) -> None:
    root = tmp_path / "set"
    images, _ = write_set(root, 5)
    endings = {path.stem: path.suffix for path in images.iterdir()}
    (root / "valid.txt").write_text(f"1{endings['1']}\n3{endings['3']}\nelsewhere.png\n")
    everything = {"root": root, "classes": classes}
    assert parts(**everything) == (["0", "2", "4"], ["1", "3"])
    for text, which in (
        ("x.png\n", "none of the 5"),
        ("".join(f"{n}{end}\n" for n, end in endings.items()), "all of the 5"),
    ):
        (root / "valid.txt").write_text(text)
        assert f"valid.txt: names {which} images" in refusal(**everything)
    (root / "valid.txt").write_bytes(b"\xff\xfe\x00")
    assert "valid.txt: can't be read" in refusal(**everything)


def test_a_named_validation_part_is_no_training_data(tmp_path: Path, classes: Path) -> None:
    for part, numbers in (("a", range(3)), ("b", range(3, 5))):
        for number in numbers:
            save(tmp_path / "x" / part / f"{number}.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
            save(tmp_path / "y" / part / f"{number}_mask.png", labels(number))
    settings = {"images": tmp_path / "x", "masks": tmp_path / "y", "classes": classes, "mask_suffix": "_mask"}
    assert parts(**settings, val="b") == (["0", "1", "2"], ["3", "4"])
    assert parts(**settings, train="a", val="b") == (["0", "1", "2"], ["3", "4"])
    assert "both have" in refusal(**settings, train="b", val="b")


def test_polygons_become_masks_with_or_without_a_background(tmp_path: Path) -> None:
    path = write_polygons(tmp_path)
    split = load_segmented_split(SegmentationData(annotations=path, train={"day": ["0"]}, val={"day": ["1"]}))
    assert split.train.classes == ["background", "van", "car"]
    assert (names(split.train), names(split.val)) == (["0", "1", "2"], ["3", "4", "5"])
    assert split.train.counts()[1:] == [3 * 64, 3 * 64]
    bare = load_segmented_split(SegmentationData(annotations=path, background=None))
    assert bare.train.classes == ["van", "car"]
    again = SegmentationData(annotations=path)
    assert len(load_segmented_split(again, ["background", "van", "car"]).val) == 1
    assert len(read_segmented_part(again, "day=0", ["background", "van", "car"])[0]) == 3
    assert len(read_segmented_part(again, "all", ["background", "van", "car"])[0]) == 6
    with pytest.raises(InputError, match="the model's first class 'van'; give data.background"):
        load_segmented_split(again, ["van", "car"])


def test_objects_without_masks_and_a_single_class_are_refused(tmp_path: Path) -> None:
    assert "has no mask" in refusal(annotations=write_polygons(tmp_path / "boxes", masks=False))
    path = write_polygons(tmp_path / "one")
    words = refusal(annotations=path, background=None, leave_out=["car"])
    assert "1 classes (van); give 2 to 254" in words
    words = refusal(annotations=path, background=None, train={"day": ["1"]}, val={"day": ["0"]})
    assert "only 'van' occurs in 3 masks" in words and "needs two classes to tell apart" in words


def test_masks_of_one_class_can_be_evaluated_on_but_not_trained_on(tmp_path: Path, classes: Path) -> None:
    root = tmp_path / "set"
    for part in ("train", "val"):
        images, masks = write_set(tmp_path / part, 2)
        images.rename(make(root / part) / "images")
        masks.rename(root / part / "masks")
    for path in (root / "val" / "masks").iterdir():
        save(path, np.ones((HEIGHT, WIDTH), np.uint8))
    assert len(load_segmented_split(SegmentationData(root=root, classes=classes)).val) == 2
    words = refusal(root=root, classes=classes, train="val", val="train")
    assert "only 'car' occurs in 2 masks" in words
    assert "visionlora check-data" in words and f"--classes {classes}" in words
    for path in (root / "val" / "masks").iterdir():
        save(path, np.full((HEIGHT, WIDTH), 255, np.uint8))
    assert "no pixel of the 2 images to evaluate on has a class" in refusal(root=root, classes=classes)


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_the_classes_must_be_the_models(tmp_path: Path, classes: Path) -> None:
    write_set(tmp_path / "set", 4)
    data = SegmentationData(root=tmp_path / "set", classes=classes)
    with pytest.raises(InputError, match=r"its classes \(road, car, wall\) are not the model's \(road, wall, car\)"):
        load_segmented_split(data, ["road", "wall", "car"])


def test_an_unreadable_image_is_left_out_when_asked(tmp_path: Path, classes: Path) -> None:
    images, _ = write_set(tmp_path / "set", 5)
    (images / "1.jpg").write_bytes(b"nothing")
    assert "image can't be decoded" in refusal(root=tmp_path / "set", classes=classes)
    split = load_segmented_split(SegmentationData(root=tmp_path / "set", classes=classes, skip_unreadable=True))
    assert (names(split.train), split.skipped) == (["0", "2", "3"], [images / "1.jpg"])


SETTINGS: dict[str, dict[str, Any]] = {
    "no images: give data.root, or data.images": {},
    "no classes: give data.classes": {"root": "x"},
    "data.images and data.masks are folders that belong together": {"images": "x", "classes": "c"},
    "data.root and data.images both say": {"root": "x", "images": "x", "masks": "y", "classes": "c"},
    "data.order_by is for annotated images": {"root": "x", "classes": "c", "order_by": "frame"},
    "data.leave_out is for annotated images": {"root": "x", "classes": "c", "leave_out": ["car"]},
    "data.classes is for mask files": {"annotations": "a.json", "classes": "c"},
    "data.mask_suffix is for mask files": {"annotations": "a.json", "mask_suffix": "_m"},
    "x: no such folder": {"root": "x", "classes": "c"},
    "c: no such file": {"images": ".", "masks": "y", "classes": "c"},
}


@pytest.mark.parametrize("words", SETTINGS)
def test_settings_that_do_not_go_together(words: str) -> None:
    assert words in refusal(**SETTINGS[words])
