"""Reading for training: which layout a path is, what is refused, and how classes are matched."""

import json
from pathlib import Path

import pytest

from helpers.annotation_sets import box, kinds, write_coco, write_parts, write_voc, write_yolo
from visionlora.data.annotations.layouts import examine_annotations, find_layout, read_annotations
from visionlora.data.annotations.recognising import Layout, recognise
from visionlora.data.faults import ERRORS, REMARKS, Fault
from visionlora.errors import InputError


def test_the_layout_is_told_by_the_path(tmp_path: Path) -> None:
    coco, voc, yolo = (tmp_path / name for name in ("coco", "voc", "yolo"))
    write_coco(coco), write_voc(voc), write_yolo(yolo)
    assert find_layout(coco / "annotations.json") == find_layout(coco) == Layout("coco", coco / "annotations.json")
    assert find_layout(yolo / "data.yaml") == find_layout(yolo) == Layout("yolo", yolo / "data.yaml")
    assert find_layout(voc) == recognise(voc / "Annotations") == Layout("voc", voc)
    assert recognise(coco / "images") is None
    assert [read_annotations(path).counts() for path in (coco, voc, yolo)] == [[1, 1]] * 3


def test_the_same_boxes_come_out_of_every_layout(tmp_path: Path) -> None:
    found = []
    for name, write in (("coco", write_coco), ("voc", write_voc), ("yolo", write_yolo)):
        write(tmp_path / name)
        data = read_annotations(tmp_path / name)
        first = data.images[0].objects[0]
        found.append((data.classes[first.label], [round(value, 3) for value in first.box]))
    assert found == [("van", [10, 10, 30, 20])] * 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("set/annotatoins.json", "no such file or folder (did you mean 'annotations.json'?)"),
        ("set/images/1.jpg", "is no annotation file; give a COCO .json, a YOLO data.yaml, a folder"),
        ("set/images", "holds no annotations that are known (1.jpg, 2.jpg); give a COCO .json"),
        ("two", "holds a.json, b.json; name those that are meant"),
    ],
)
def test_a_path_that_is_none_of_them_is_refused(tmp_path: Path, name: str, message: str) -> None:
    write_coco(tmp_path / "set")
    (tmp_path / "two").mkdir()
    for other in "ab":
        (tmp_path / "two" / f"{other}.json").touch()
    with pytest.raises(InputError) as caught:
        read_annotations(tmp_path / name)
    assert message in str(caught.value)


def test_errors_are_refused_with_their_number_and_the_first_few(tmp_path: Path) -> None:
    def change(document: dict) -> None:
        document["annotations"] = [box(n, bbox=(70, 0, 5, 5)) for n in range(1, 5)] + [box(5, category=9), box(6)]

    path = write_coco(tmp_path, change)
    with pytest.raises(InputError) as caught:
        read_annotations(path)
    message = str(caught.value)
    assert message.startswith(
        f"{path}: 5 faults (4 x box outside the image, 1 x unknown class): {path}, annotation 5: "
    )
    assert "annotation 1:" in message and "annotation 2:" in message and "annotation 3:" not in message
    assert f"; and 2 more. Run visionlora check-data {path} to see all" in message
    assert "\n" not in message


def test_remarks_are_taken(tmp_path: Path) -> None:
    path = write_coco(tmp_path, lambda d: d["annotations"][0].update(iscrowd=1))
    assert kinds(examine_annotations(path).faults) == ["crowd"]
    assert read_annotations(path).counts() == [0, 1]


def test_unreadable_images_are_left_out_when_asked(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    (tmp_path / "images" / "2.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"2\.jpg: empty file; replace or remove it"):
        read_annotations(path)
    assert [image.path.name for image in read_annotations(path, skip_unreadable=True).images] == ["1.jpg"]


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    data = read_annotations(path, classes=["bus", "car", "van"])
    assert data.classes == ["bus", "car", "van"]
    assert [thing.label for thing in data.images[0].objects] == [2, 1]


def test_a_class_that_training_lacks_is_an_error(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    reading = examine_annotations(path, classes=["vans", "car"])
    assert kinds(reading.faults) == ["unknown-class"]
    expected = "1.jpg, annotation 1: class 'van' is not among the training classes vans, car (did you mean 'vans'?)"
    assert str(reading.faults[0]).endswith(expected)
    assert reading.data.counts() == [0, 1]
    with pytest.raises(InputError, match="1 x unknown class"):
        read_annotations(path, classes=["vans", "car"])


def test_a_category_that_no_object_has_does_no_harm(tmp_path: Path) -> None:
    path = write_coco(tmp_path, lambda d: d["categories"].append({"id": 3, "name": "bus"}))
    assert read_annotations(path, classes=["van", "car"]).counts() == [1, 1]


def test_left_out_classes_go_and_their_images_stay(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    train = read_annotations(path, leave_out=["car"])
    assert (train.classes, train.counts(), len(train)) == (["van"], [1], 2)
    val = read_annotations(path, classes=train.classes, leave_out=["car", "bus"])
    assert (val.classes, val.counts(), len(val)) == (["van"], [1], 2)
    with pytest.raises(InputError, match="no class 'cars' to leave out"):
        read_annotations(path, leave_out=["cars"])


def test_parts(tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo")
    write_parts(write_voc(tmp_path / "voc"), train="1", val="2")
    write_coco(tmp_path / "coco", lambda d: [d["images"][n].update(part=("train", "val")[n]) for n in (0, 1)])
    classes = ["van", "car"]
    parts = [read_annotations(tmp_path / name, part="val", classes=classes) for name in ("yolo", "voc", "coco")]
    assert [(len(part), part.classes) for part in parts] == [(1, classes)] * 3
    with pytest.raises(InputError, match=r"no image has part 'vall' \(did you mean 'val'\?\); there are train, val"):
        read_annotations(tmp_path / "coco", part="vall")
    write_coco(tmp_path / "coco")
    with pytest.raises(InputError, match=r"no image has a field 'part'.*; there are day"):
        read_annotations(tmp_path / "coco", part="val")


def test_a_data_set_without_any_object_is_an_error(tmp_path: Path) -> None:
    path = write_coco(tmp_path, lambda d: d.update(annotations=[]))
    with pytest.raises(InputError, match="none of 2 images shows an object to train on"):
        read_annotations(path)
    assert len(read_annotations(path, classes=["van"])) == 2  # to evaluate on


def test_voc_takes_any_folder_of_images_as_root(tmp_path: Path) -> None:
    write_voc(tmp_path / "set")
    (tmp_path / "set" / "JPEGImages").rename(tmp_path / "photos")
    (tmp_path / "set" / "Annotations").rename(tmp_path / "boxes")
    assert read_annotations(tmp_path / "boxes", root=tmp_path / "photos").counts() == [1, 1]


def test_every_kind_is_an_error_or_a_remark(tmp_path: Path) -> None:
    assert not ERRORS.keys() & REMARKS.keys()
    assert [Fault(kind, "a", "", "b").title for kind in (*ERRORS, *REMARKS)] == [*ERRORS.values(), *REMARKS.values()]
    assert str(Fault("empty", "a", "", "b")) == "a: b"
    assert str(Fault("empty", "a", "line 1", "b")) == "a, line 1: b"


def test_every_kind_that_the_code_notes_is_known() -> None:
    import re

    folder = Path(__file__).parents[3] / "visionlora" / "data"
    noted = {kind for file in folder.rglob("*.py") for kind in re.findall(r'note\(\s*"([a-z-]+)"', file.read_text())}
    others = {"elsewhere", "box-partly-outside", "mask-outside", "left-out", "unreadable"}  # by a variable
    others |= {"lossy-mask", "mask-color", "mask-value", "no-colors"}
    assert noted | others == ERRORS.keys() | REMARKS.keys()


def test_the_kits_car_park_has_no_fault(kit: Path) -> None:
    path = kit / "data" / "surveillance_lot_960" / "annotations.json"
    document = json.loads(path.read_text())
    data = read_annotations(path)
    assert len(data) == len(document["images"])
    assert sum(data.counts()) == len(document["annotations"])
    assert data.images[0].fields == {"day": document["images"][0]["day"]}


def test_the_kits_video_has_no_images(kit: Path) -> None:
    with pytest.raises(InputError, match="it describes frames of a video: visionlora frames"):
        read_annotations(kit / "data" / "pets2009_s2l1")
