"""The report on a data set, and its mended copy."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_sets import (
    SIZE,
    box,
    entry,
    kinds,
    voc_object,
    voc_text,
    write_coco,
    write_image,
    write_parts,
    write_voc,
    write_yolo,
)
from visionlora.data.annotations.layouts import read_annotations
from visionlora.data.checks import mending
from visionlora.data.checks.check_data import check
from visionlora.data.checks.report import ClassCount
from visionlora.errors import InputError


def write_classes(root: Path, **images: int) -> None:
    """root/class/number.jpg"""
    for index, (name, count) in enumerate(images.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_image(root / name / f"{number}.jpg", zlib.crc32(f"{root.name} {index} {number}".encode()))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_report_counts_what_is_there(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["annotations"] += [
            box(3, bbox=(0, 0, 50, 20)),
            box(4, image=2, bbox=(5, 5, 9, 9), iscrowd=1),
            box(5, bbox=(40, 20, 4, 2), segmentation=[[40, 20, 44, 20, 44, 22, 40, 22]]),
        ]

    report = check(write_coco(tmp_path, change))
    assert (report.layout, report.image_sizes, report.errors) == ("coco", {"60 x 40": 2}, [])
    (part,) = report.parts
    assert (part.name, part.images, part.negatives, part.objects, part.crowds, part.masks) == ("", 2, 0, 4, 1, 1)
    assert part.classes == {"van": ClassCount(3, 1), "car": ClassCount(1, 1)}
    assert part.boxes is not None
    assert (part.boxes.small, part.boxes.medium, part.boxes.large) == (4, 0, 0)
    assert (part.boxes.width[0], part.boxes.width[50], part.boxes.width[100]) == (4, 14, 50)
    assert (part.boxes.height[0], part.boxes.height[100]) == (2, 20)
    assert part.boxes.share[100] == pytest.approx(1000 / 2400)


def test_sizes_are_told_by_cocos_areas(tmp_path: Path) -> None:
    path = write_coco(
        tmp_path,
        lambda d: [
            d["images"][0].update(width=200, height=200),
            d.update(
                annotations=[
                    box(1, bbox=(0, 0, 31, 33)),
                    box(2, bbox=(0, 0, 32, 32)),
                    box(3, bbox=(0, 0, 95, 97)),
                    box(4, bbox=(0, 0, 96, 96)),
                ]
            ),
        ],
    )
    write_image(tmp_path / "images" / "1.jpg", 1, (200, 200))
    sizes = check(path).parts[0].boxes
    assert sizes is not None
    assert (sizes.small, sizes.medium, sizes.large) == (1, 2, 1)


def test_a_report_becomes_json(tmp_path: Path) -> None:
    path = write_coco(tmp_path, lambda d: d["annotations"].append(box(3, bbox=(70, 0, 5, 5), iscrowd=1)))
    write_image(tmp_path / "images" / "3.jpg", 3)
    content = json.loads(json.dumps(check(path).to_dict()))
    assert [(fault["severity"], fault["kind"], fault["where"]) for fault in content["faults"]] == [
        ("error", "box-outside", "annotation 3"),
        ("remark", "no-annotation", ""),
    ]
    assert content["parts"][0]["classes"]["van"] == {"objects": 1, "images": 1, "pixels": 0}
    assert content["changes"] is None


def test_images_that_no_file_mentions_are_a_remark(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    write_image(tmp_path / "images" / "sub" / "3.jpg", 3)
    (tmp_path / "images" / "notes.txt").touch()
    (fault,) = check(path).faults
    assert (fault.kind, fault.is_error) == ("no-annotation", False)
    assert fault.message == "1 image files aren't annotated (3.jpg); they are not read"


def near(path: Path, like: Path) -> None:
    """The same picture, saved again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(like).save(path, quality=60)


def test_near_duplicates_within_and_across_parts(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    for number, part, like in ((4, "train", 1), (5, "val", 1), (6, "train", 1)):
        near(tmp_path / "images" / part / f"{number}.jpg", tmp_path / "images" / "train" / f"{like}.jpg")
        (tmp_path / "labels" / part / f"{number}.txt").touch()
    report = check(path)
    images = tmp_path / "images"
    assert [(burst.part, burst.images) for burst in report.bursts] == [
        ("train", [str(images / "train" / f"{n}.jpg") for n in (1, 4, 6)])
    ]
    (leak,) = report.leaks
    assert (leak.first, leak.second, leak.images) == ("train", "val", 1)
    assert leak.nearest[0][1] == str(images / "val" / "5.jpg")
    (fault,) = report.faults
    assert (fault.kind, fault.is_error) == ("leak", False)
    assert fault.message.startswith("1 of 2 images of val nearly equal one of train, such as ")


def test_parts_may_be_a_field(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    near(tmp_path / "images" / "2.jpg", tmp_path / "images" / "1.jpg")
    report = check(path, by="day")
    assert [(part.name, part.images) for part in report.parts] == [("monday", 1), ("tuesday", 1)]
    assert [(leak.first, leak.second) for leak in report.leaks] == [("monday", "tuesday")]
    assert report.bursts == []
    assert [len(burst.images) for burst in check(path).bursts] == [2]
    with pytest.raises(InputError, match=r"no image has a field 'dya' \(did you mean 'day'\?\)"):
        check(path, by="dya")


def test_an_image_without_the_field_is_in_a_part_of_its_own(tmp_path: Path) -> None:
    report = check(write_coco(tmp_path, lambda d: d["images"][1].pop("day")), by="day")
    assert [part.name for part in report.parts] == ["monday", "no day"]


def test_several_files_are_parts_of_one_data_set(tmp_path: Path) -> None:
    train = write_coco(tmp_path / "a", lambda d: d["images"].pop(1))
    val = train.with_name("val.json")
    val.write_text(json.dumps({**json.loads(train.read_text()), "images": [entry(1, file_name="2.jpg")]}))
    report = check([train, val])
    assert report.faults == []
    assert [(part.name, part.images) for part in report.parts] == [("annotations", 1), ("val", 1)]
    val.write_text(train.read_text())
    (fault,) = [fault for fault in check([train, val]).faults if fault.is_error]
    assert (fault.kind, fault.message) == ("in-two-parts", "1.jpg is in annotations and in val; keep it in one")
    with pytest.raises(InputError, match="one data set at a time"):
        check([train, val], fix=tmp_path / "out")


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [write_coco(tmp_path / name) for name in "ab"]
    assert [part.name for part in check(paths).parts] == [str(path) for path in paths]


def test_parts_of_voc(tmp_path: Path) -> None:
    write_parts(write_voc(tmp_path), train="1", val="2")
    assert [(part.name, part.images) for part in check(tmp_path).parts] == [("train", 1), ("val", 1)]


def test_class_folders_in_parts(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", car=3, van=2)
    write_classes(tmp_path / "val", car=1, van=1)
    near(tmp_path / "val" / "van" / "again.jpg", tmp_path / "train" / "car" / "1.jpg")
    report = check(tmp_path)
    assert (report.layout, report.errors) == ("folders", [])
    assert [part.name for part in report.parts] == ["train", "val"]
    assert report.parts[1].classes == {"car": ClassCount(1, 1), "van": ClassCount(2, 2)}
    assert kinds(report.faults) == ["leak"]
    assert Path(report.leaks[0].nearest[0][1]).name == "again.jpg"
    assert report.image_sizes == {"60 x 40": 8}


def test_class_folders_without_parts(tmp_path: Path) -> None:
    write_classes(tmp_path, car=2, van=2)
    (part,) = check(tmp_path).parts
    assert (part.name, part.images, part.boxes) == ("", 4, None)


def test_all_faults_of_class_folders_are_found(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", car=2, van=1)
    write_classes(tmp_path / "val", car=1, vans=1)
    (tmp_path / "train" / "bus").mkdir()
    (tmp_path / "train" / "car" / "a.heic").touch()
    (tmp_path / "train" / "car" / "b.jpg").write_bytes(b"no image")
    write_image(tmp_path / "train" / "loose.jpg", 99)
    (tmp_path / "old").mkdir()
    found = {fault.kind: str(fault) for fault in check(tmp_path).faults}
    train = tmp_path / "train"
    assert found == {
        "empty": f"{train / 'bus'}: class 'bus' has no image; add some, or move the folder away",
        "no-annotation": f"{train}: 1 image files lie beside the class folders (loose.jpg); they are not read",
        "unknown-class": f"{tmp_path / 'val' / 'vans'}: class folder 'vans' is not among the training classes car, van"
        " (did you mean 'van'?)",
        "unread-format": f"{train / 'car'}: 1 image in a format that isn't read (a.heic); convert to JPEG or PNG,"
        " or remove",
        "unreadable": f"{train / 'car' / 'b.jpg'}: not an image of a known format (JPEG, PNG, BMP, WEBP, TIFF, GIF);"
        " replace or remove it",
    }
    remarks = [str(fault) for fault in check(tmp_path).remarks]
    assert f"{tmp_path}: old: no part of the data set, not read" in remarks


def test_one_class_is_an_error(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", car=2)
    assert [fault.message for fault in check(tmp_path).errors] == [
        "only one class (car); classification needs at least two"
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no such file or folder"),
        ("empty", "no class folders"),
        ("a.csv", "is empty; give a header"),
        ("a.txt", "is no annot"),
    ],
)
def test_a_path_that_holds_nothing_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").touch()
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=message):
        check(tmp_path / name)


def test_options_for_annotations_are_refused_for_class_folders(tmp_path: Path) -> None:
    write_classes(tmp_path, car=1, van=1)
    with pytest.raises(InputError, match="--by day: no image has such a field; there are none"):
        check(tmp_path, by="day")
    with pytest.raises(InputError, match="--root is for"):
        check(tmp_path, root=tmp_path)
    with pytest.raises(InputError, match="--fix is for boxes and masks"):
        check(tmp_path, fix=tmp_path.parent / "out")


def test_the_kits_photos_are_sound(kit: Path) -> None:
    report = check(kit / "data" / "ants_bees_256")
    assert (report.faults, report.bursts, report.leaks) == ([], [], [])
    assert [part.images for part in report.parts] == [243, 153]


def test_the_kits_car_park_leaks_at_random_and_not_by_day(kit: Path, tmp_path: Path) -> None:
    source = kit / "data" / "surveillance_lot_960"
    document = json.loads((source / "annotations.json").read_text())
    document["images"] = document["images"][:120]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [thing for thing in document["annotations"] if thing["image_id"] in kept]
    for image, part in zip(document["images"], np.random.default_rng(0).permutation(120) < 90, strict=True):
        image["random"] = "train" if part else "val"
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(document))
    assert check(path, root=source / "images", by="day").leaks == []
    (leak,) = check(path, root=source / "images", by="random").leaks
    assert leak.images > 10  # of 30


def break_coco(document: dict[str, Any]) -> None:
    """Every fault that a mended copy can mend, and every one that costs an annotation or an image."""
    counts = [0, 20, 2380]
    document["images"] += [
        entry(3, file_name="3.jpg", width=41, height=61),  # another size
        entry(4, file_name="sub\\4.jpg"),
        entry(5, file_name="1.jpg"),
        entry(6, file_name="6.jpg"),  # EXIF
        entry(7, file_name="../7.jpg"),
        entry(8, file_name="8.jpg"),  # truncated
        entry(2, file_name="4.jpg"),  # an id again
        {"id": 9, "file_name": "9.png"},
    ]
    document["annotations"] += [
        box(2, bbox=(50, 5, 30, 10)),
        box(11, bbox=(70, 5, 30, 10)),
        box(12, bbox=(10, 5, 0, 10)),
        box(13, bbox=(10, "x", 5, 10)),
        box(14, category=99),
        box(15, image=99),
        box(16, bbox=(-0.7, 5, 20, 10)),
        box(17, bbox=(40, 10, 20, 10), segmentation=[[40, 10, 75, 10, 75, 20, 40, 20]]),
        box(18, segmentation=[[10, 10, 30, 20]]),
        box(19, segmentation={"size": [40, 60], "counts": [1, 2]}),
        box(20, image=6, bbox=(10, 5, 20, 8), segmentation=[[10, 5, 30, 5, 30, 13, 10, 13]]),
        box(21, image=4, bbox=(0, 0, 1, 20), segmentation={"size": [40, 60], "counts": counts}),
        box(22, image=9, bbox=(0, 0, 9, 9), iscrowd=1),
        box(23, image=3),
        box(24, image=5, bbox=(1, 1, 7, 7)),
    ]


def write_broken(folder: Path) -> Path:
    path = write_coco(folder, break_coco)
    for number in (3, 6):
        write_image(folder / "images" / f"{number}.jpg", number, orientation=6 if number == 6 else 1)
    write_image(folder / "images" / "sub" / "4.jpg", 4)
    write_image(folder / "images" / "9.png", 9)
    cut = write_image(folder / "images" / "8.jpg", 8)
    cut.write_bytes(cut.read_bytes()[:-200])
    return path


def write_broken_voc(folder: Path) -> Path:
    text = voc_text(voc_object(xmax=90), voc_object(xmin=30), voc_object("car", 0, 6, 38, 13), voc_object(xmin="a"))
    write_parts(write_voc(folder, text), train="1\n2", val="2\n9")
    write_image(folder / "JPEGImages" / "3.jpg", 3)
    (folder / "Annotations" / "3.xml").write_text(voc_text(voc_object(), size=SIZE.replace("60", "61")))
    return folder


def write_broken_yolo(folder: Path) -> Path:
    lines = "0 0.9 0.5 0.4 0.2\n7 0.5 0.5 0.1 0.1\n1 0.5 0.5 9 9\n1 0.1 0.1 0.5 0.1 1.01 0.9\n0 0.5"
    path = write_yolo(folder, lines, "train: images/train\nval: [images/val, images/train]\nnames: [van, car]\n")
    (folder / "labels" / "val" / "9.txt").touch()
    return path


@pytest.mark.parametrize(
    ("write", "images", "objects"), [(write_broken, 4, 8), (write_broken_voc, 2, 2), (write_broken_yolo, 3, 3)]
)
def test_a_mended_copy_has_no_errors(tmp_path: Path, write: Callable[[Path], Path], images: int, objects: int) -> None:
    path = write(tmp_path / "set")
    before = snapshot(tmp_path / "set")
    out = tmp_path / "out" / "mended"
    report = check(path, fix=out)
    assert report.errors
    assert snapshot(tmp_path / "set") == before
    mended = check(out)
    assert mended.errors == []
    assert {fault.kind for fault in mended.remarks} <= {"crowd"}
    assert (sum(part.images for part in mended.parts), sum(part.objects for part in mended.parts)) == (images, objects)
    assert sorted(file.name for file in out.iterdir()) == ["annotations.json", "changes.txt", "images"]
    assert (out / "changes.txt").read_text().splitlines() == report.changes
    assert len(report.changes or []) == sum(bool(fault.mended) for fault in report.faults)
    assert [file.name for file in out.parent.iterdir()] == ["mended"]  # no temporary folder is left
    assert {part.name for part in mended.parts} == {part.name for part in report.parts}


def test_every_change_is_listed(tmp_path: Path) -> None:
    path = write_broken(tmp_path / "set")
    changes = "\n".join(check(path, fix=tmp_path / "out").changes or [])
    for line in (
        "annotation 2: id 2 is that of an annotation before; give each its own -> numbered anew",
        "annotation 2: the box x 50 to 80, y 5 to 15 reaches 20 px beyond the image of 60 x 40; correct it -> clipped",
        "annotation 11: the box x 70 to 100, y 5 to 15 lies outside the image of 60 x 40;",
        " correct or remove it -> annotation dropped",
        "annotation 16: the box x -0.7 to 19.3, y 5 to 15 reaches 0.7 px beyond the image of 60 x 40 -> clipped",
        "image 4: 'sub\\\\4.jpg' has Windows separators; write them as / -> written with /",
        "image 5: lists '1.jpg', as image 1 does; list it once, with all objects -> the two merged",
        "image 3: annotated as 41 x 61, but 3.jpg has 60 x 40; annotate it again, or restore the file -> image left",
        "is shown as 40 x 60 (EXIF orientation 6); turn the annotations with it -> annotations turned with the image",
        "image 9: has no width and height; the file's are taken -> the file's size taken",
    ):
        assert line in changes
    assert "crowd" not in changes  # a remark that changes nothing


def test_a_mended_copy_holds_what_was_right(tmp_path: Path) -> None:
    """Also without any fault: the same boxes, masks, crowds, fields and pixels."""
    masks = [[[10.0, 10.0, 30.0, 10.0, 30.0, 20.0]], {"size": [40, 60], "counts": [1226, 8, 1166]}]

    def change(document: dict[str, Any]) -> None:
        document["annotations"] = [
            box(5, segmentation=masks[0]),
            box(6, bbox=(30, 26, 1, 8), category=7, segmentation=masks[1], iscrowd=1),
        ]

    path = write_coco(tmp_path / "set", change)
    out = tmp_path / "out"
    out.mkdir()
    report = check(path, fix=out)
    assert (report.changes, (out / "changes.txt").read_text()) == ([], "")
    before, after = read_annotations(path), read_annotations(out)
    assert after.classes == before.classes
    for old, new in zip(before.images, after.images, strict=True):
        assert (old.width, old.height, old.fields) == (new.width, new.height, new.fields)
        assert [(t.label, t.box, t.mask, t.crowd) for t in old.objects] == [
            (t.label, t.box, t.mask, t.crowd) for t in new.objects
        ]
        assert old.path.read_bytes() == new.path.read_bytes()
        assert not new.path.is_symlink()
        assert old.path.stat().st_ino != new.path.stat().st_ino
    document = json.loads((out / "annotations.json").read_text())
    assert [annotation["area"] for annotation in document["annotations"]] == [100, 8]
    assert [annotation["bbox"] for annotation in document["annotations"]] == [[10, 10, 20, 10], [30, 26, 1, 8]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("full", "exists already and is no empty folder"),
        ("file", "exists already and is no empty folder"),
        ("set/images/out", "lies in .*images, which is not to be changed"),
    ],
)
def test_a_copy_goes_to_an_empty_place_outside(tmp_path: Path, name: str, message: str) -> None:
    path = write_coco(tmp_path / "set")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "file").touch()
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=message):
        check(path, fix=tmp_path / name)
    assert snapshot(tmp_path) == before


def test_a_copy_without_any_object_is_refused(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "set", lambda d: d.update(annotations=[box(1, category=5)]))
    with pytest.raises(InputError, match="no object in .* can be used"):
        check(path, fix=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_coco(tmp_path / "set")

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mending, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        check(path, fix=tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["set"]
