"""Which format lies at a path, and what is said of those that aren't read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.annotation_sets import (
    coco_document,
    kinds,
    voc_object,
    voc_text,
    write_coco,
    write_image,
    write_voc,
    write_yolo,
)
from visionlora.data.annotations.layouts import examine_annotations, read_annotations
from visionlora.data.annotations.recognising import recognise
from visionlora.data.checks.check_data import check
from visionlora.data.classification.folder_labels import read_folder
from visionlora.errors import InputError


def coco(folder: Path, images: str = "images", **more: Any) -> dict[str, Any]:
    for number in (1, 2):
        write_image(folder / images / f"{number}.jpg", sum(map(ord, images)) * 10 + number)
    return {**coco_document(), **more}


def dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def cvat_coco(folder: Path) -> None:
    dump(folder / "annotations" / "instances_default.json", coco(folder))


def cvat_subset(folder: Path) -> None:
    dump(folder / "annotations" / "instances_Train.json", coco(folder, "images/Train"))


def fiftyone(folder: Path) -> None:
    dump(folder / "labels.json", coco(folder, "data"))


def coco_2017(folder: Path) -> None:
    for part in ("train", "val"):
        dump(folder / "annotations" / f"instances_{part}2017.json", coco(folder, f"{part}2017"))
        dump(folder / "annotations" / f"person_keypoints_{part}2017.json", coco(folder, f"{part}2017"))


def parts_by_name(folder: Path) -> None:
    for part in ("train", "valid"):
        dump(folder / f"{part}.json", coco(folder, f"images/{part}"))


def roboflow(folder: Path) -> None:
    for part in ("train", "valid", "test"):
        dump(folder / part / "_annotations.coco.json", coco(folder, part))


def unpacked(folder: Path) -> None:
    roboflow(folder / "export" / "my set")
    (folder / "export" / "__MACOSX").mkdir()
    (folder / "README.roboflow.txt").touch()


def roboflow_voc(folder: Path) -> None:
    for part in ("train", "valid"):
        for number in (1, 2):
            write_image(folder / part / f"{number}.jpg", number + len(part))
            objects = (voc_object(), voc_object("car", 31, 6, 38, 13)) if number == 1 else ()
            (folder / part / f"{number}.xml").write_text(voc_text(*objects, filename=f"{number}.jpg"))


def voc_in_capitals(folder: Path) -> None:
    write_voc(folder)
    (folder / "Annotations").rename(folder / "ANNOTATIONS")
    (folder / "JPEGImages").rename(folder / "Imgs")
    (folder / "ANNOTATIONS" / "1.xml").rename(folder / "ANNOTATIONS" / "1.XML")


def voc_elsewhere(folder: Path) -> None:
    write_voc(folder)
    (folder / "Annotations").rename(folder / "boxes 2024")
    (folder / "JPEGImages").rename(folder / "photos")


@pytest.mark.parametrize(
    ("make", "layout", "parts"),
    [
        (cvat_coco, "coco", 1),
        (cvat_subset, "coco", 1),
        (fiftyone, "coco", 1),
        (coco_2017, "coco", 2),
        (parts_by_name, "coco", 2),
        (roboflow, "coco", 3),
        (unpacked, "coco", 3),
        (roboflow_voc, "voc", 2),
        (voc_in_capitals, "voc", 1),
        (voc_elsewhere, "voc", 1),
    ],
)
def test_a_folder_as_it_was_exported_opens(
    tmp_path: Path, make: Callable[[Path], None], layout: str, parts: int
) -> None:
    make(tmp_path)
    reading = examine_annotations(tmp_path)
    assert (reading.layout, reading.faults) == (layout, [])
    assert reading.data.counts() == [parts, parts]
    names = ["train", "val", "test"][:parts]
    assert list(dict.fromkeys(image.fields.get("part") for image in reading.data.images)) == (
        names if parts > 1 else [None]
    )
    assert [part.name for part in check(tmp_path).parts] == (names if parts > 1 else [""])
    if parts > 1:
        assert len(read_annotations(tmp_path, part="val")) == 2


def test_a_name_in_another_place_does_not_make_two_data_sets(tmp_path: Path) -> None:
    write_coco(tmp_path)
    dump(tmp_path / "predictions.json", [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}])
    with pytest.raises(InputError, match=r"holds annotations\.json \(COCO\), predictions\.json \(COCO\); name those"):
        recognise(tmp_path)


NAMED: dict[str, tuple[str, Any, str]] = {
    "zip": ("set.zip", b"PK", "is an archive; unpack it"),
    "createml": ("a.json", [{"image": "1.jpg", "annotations": []}], "is Apple's CreateML; export it as COCO"),
    "datumaro": ("default.json", {"info": {}, "categories": {}, "items": []}, "is Datumaro's"),
    "fiftyone": ("labels.json", {"classes": ["a"], "labels": {}}, "is FiftyOne's own"),
    "labelbox": ("a.json", [{"data_row": {}}], "is Labelbox's"),
    "bdd": ("a.json", [{"name": "1.jpg", "labels": []}], "is BDD100K's"),
    "supervisely": ("a.json", {"description": "", "size": {}, "objects": []}, "is Supervisely's"),
    "vott": ("a.json", {"assets": {}, "tags": []}, "is VoTT's own"),
    "geojson": ("a.json", {"type": "FeatureCollection", "features": []}, "is GeoJSON"),
    "tfrecord": ("train.tfrecord", b"", "is TFRecord; export it as COCO"),
    "dlib": ("a.xml", b"<?xml version='1.0'?>\n<!-- x -->\n<dataset><images/></dataset>", "is dlib's (imglab's) XML"),
    "one VOC": ("a.xml", b"<annotation/>", "is one image of Pascal VOC; give the folder of all"),
    "lines": ("a.ndjson", b"{}", "lines of JSON"),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_is_not_read_is_named(tmp_path: Path, case: str) -> None:
    name, content, message = NAMED[case]
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_annotations(tmp_path / name)
    assert message in str(caught.value)


def test_a_table_of_boxes_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "1.jpg")
    (tmp_path / "train" / "_annotations.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n")
    with pytest.raises(InputError, match="is a table of boxes, which isn't read; export it as COCO"):
        check(tmp_path)


@pytest.mark.parametrize("names", [("images", "annotations"), ("images", "labels"), ("imgs", "anns")])
def test_images_and_unknown_annotations_are_never_class_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    write_image(tmp_path / names[0] / "1.jpg")
    (tmp_path / names[1]).mkdir()
    (tmp_path / names[1] / "1.xyz").write_text("?")
    with pytest.raises(InputError, match="images and annotations, and no class folders") as caught:
        check(tmp_path)
    assert "check-data FILE --root IMAGES" in str(caught.value)
    assert "remove" not in str(caught.value)


@pytest.mark.parametrize("names", [("images", "masks"), ("JPEGImages", "SegmentationClass"), ("train", "trainannot")])
def test_images_and_masks_are_never_class_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write_image(tmp_path / name / "1.png")
    if names[0] == "train":
        write_image(tmp_path / "images" / "1.png")
    with pytest.raises(InputError, match="images and masks .*, and no file that names their classes.*--classes"):
        check(tmp_path)


@pytest.mark.parametrize("names", [("image_2", "label_2"), ("img1", "gt"), ("pictures", "boxes")])
def test_whatever_lies_beside_images_as_text_is_no_class(tmp_path: Path, names: tuple[str, str]) -> None:
    """KITTI, MOT, and what nobody knows."""
    write_image(tmp_path / names[0] / "1.png")
    (tmp_path / names[1]).mkdir()
    (tmp_path / names[1] / "1.txt").write_text("Car 0.00 0 -1.58 587.01")
    with pytest.raises(InputError, match=r"no class folders, but of no format that is known with \.txt files"):
        check(tmp_path)


def test_an_archive_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "set.zip").touch()
    with pytest.raises(InputError, match=r"holds set\.zip, packed; unpack it, and give the folder"):
        check(tmp_path)


@pytest.mark.parametrize("make", [cvat_coco, voc_elsewhere, lambda folder: write_yolo(folder)])
def test_training_a_classifier_on_boxes_names_the_format(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path)
    with pytest.raises(InputError, match=r"is (COCO|Pascal VOC|YOLO), with boxes or masks.*data\.annotations="):
        read_folder(tmp_path)


def test_a_link_to_the_folder_itself_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    assert recognise(tmp_path) is None
    write_voc(tmp_path / "set")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    assert check(tmp_path / "set").errors == []


def test_other_json_files_beside_class_folders_are_no_annotations(tmp_path: Path) -> None:
    for number, name in enumerate(("car", "van")):
        write_image(tmp_path / name / "1.jpg", number)
        dump(tmp_path / f"{name}.json", {"0": name})
    assert check(tmp_path).layout == "folders"


def test_a_class_may_be_called_like_a_part_of_a_layout(tmp_path: Path) -> None:
    for number, name in enumerate(("masks", "gloves", "labels")):
        write_image(tmp_path / name / "1.jpg", number)
    assert check(tmp_path).layout == "folders"


def test_names_that_differ_in_capitals_alone_are_a_remark(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, yaml="train: images/train\nval: images/val\nnames: [Van car, van_car]\n")
    assert kinds(examine_annotations(path).faults) == ["classes-alike"]
