"""YOLO: what is read from a sound data set, and each thing that can be wrong."""

from pathlib import Path

import pytest

from helpers.annotation_sets import YAML, boxes, kinds, write_image, write_yolo
from visionlora.data.annotations.annotated import Polygons
from visionlora.data.annotations.yolo import label_path, read_yolo
from visionlora.errors import InputError


def test_a_sound_data_set_reads_without_a_fault(tmp_path: Path) -> None:
    reading = read_yolo(write_yolo(tmp_path))
    assert reading.faults == []
    assert reading.data.classes == ["van", "car"]
    assert boxes(reading) == [[(10, 10, 30, 20)], [], [(24, 16, 36, 24)]]
    assert [image.fields for image in reading.data.images] == [{"part": "train"}, {"part": "train"}, {"part": "val"}]
    assert [thing.label for image in reading.data.images for thing in image.objects] == [0, 1]
    assert reading.data.images[0].objects[0].source == "line 1"


def test_one_part_is_read(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    assert [image.path.name for image in read_yolo(path, part="val").data.images] == ["3.jpg"]
    with pytest.raises(InputError, match=r"no part 'valid' \(did you mean 'val'\?\); the parts are train, val"):
        read_yolo(path, part="valid")


def test_polygons_are_read_and_boxed(tmp_path: Path) -> None:
    lines = "0 0.5 0.5 0.2 0.2\n\n1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.5\n"
    reading = read_yolo(write_yolo(tmp_path, lines))
    assert reading.faults == []
    first, second = reading.data.images[0].objects
    assert first.mask is None
    assert second.mask == Polygons(((15, 10, 30, 10, 30, 30, 15, 20),))
    assert (second.box, second.source) == ((15, 10, 30, 30), "line 3")


def test_shares_are_of_the_image_as_it_is_shown(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, "0 0.5 0.25 0.5 0.25")
    write_image(tmp_path / "images" / "train" / "1.jpg", 1, orientation=6)
    reading = read_yolo(path)
    assert boxes(reading)[0] == [(10, 7.5, 30, 22.5)]  # of 40 x 60
    assert kinds(reading.faults) == ["exif-unclear"]


@pytest.mark.parametrize(
    "yaml",
    [
        "train: images/train\nval: images/val\nnames:\n  0: van\n  1: car\n",
        "train: images/train\nval: images/val\nnames:\n  1: car\n  0: van\nnc: 2\n",
        "path: .\ntrain: [images/train]\nval: images/val\nnames: [van, car]\ntest:\n",
        "path: ../set\ntrain: images/train\nval: images/val\nnames: [van, car]\n",
        "path: {absolute}\ntrain: '{absolute}/images/train'\nval: images/val\nnames: [van, car]\n",
        "train: train.txt\nval: images/val\nnames: [van, car]\n",
    ],
)
def test_ways_of_writing_the_yaml(tmp_path: Path, yaml: str) -> None:
    folder = tmp_path / "set"
    path = write_yolo(folder, yaml=yaml.format(absolute=folder))
    (folder / "train.txt").write_text("./images/train/1.jpg\nimages/train/2.jpg\n\n")
    reading = read_yolo(path)
    assert reading.faults == []
    assert reading.data.classes == ["van", "car"]
    assert [image.path.name for image in reading.data.images] == ["1.jpg", "2.jpg", "3.jpg"]


def test_class_names_stay_text(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, yaml="train: images/train\nnames: [no, 1]\n")
    assert read_yolo(path).data.classes == ["no", "1"]


def test_paths_for_another_folder_are_a_remark(tmp_path: Path) -> None:
    """As after a download: ``path`` is the author's, and Roboflow writes ../train/images."""
    path = write_yolo(tmp_path, yaml="path: /content/set\ntrain: ../images/train\nval: images/val\nnames: [van, car]\n")
    reading = read_yolo(path)
    assert kinds(reading.faults) == ["other-path", "other-path"]
    assert "path: '/content/set' is not there, and the folder of data.yaml is taken" in reading.faults[0].message
    assert "'../images/train' is taken for 'images/train', which is there" in reading.faults[1].message
    assert not any(fault.is_error for fault in reading.faults)
    assert len(reading.data) == 3


def test_a_root_goes_before_the_path(tmp_path: Path) -> None:
    path = write_yolo(tmp_path / "set", yaml="path: /content/set\n" + YAML)
    moved = path.rename(tmp_path / "data.yaml")
    assert read_yolo(moved, root=tmp_path / "set").faults == []
    with pytest.raises(InputError, match="no such folder"):
        read_yolo(moved, root=tmp_path / "sett")


def test_labels_lie_where_images_becomes_labels() -> None:
    assert label_path(Path("/a/images/b/images/c.x.jpg")) == Path("/a/images/b/labels/c.x.txt")
    assert label_path(Path("/a/b/c.png")) == Path("/a/b/c.txt")
    assert label_path(Path("/a/b/images.png")) == Path("/a/b/images.txt")


def test_an_image_without_a_label_file_is_a_negative_with_a_remark(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "2.txt").unlink()
    reading = read_yolo(path)
    assert kinds(reading.faults) == ["no-label-file"]
    assert reading.faults[0].message == "no 2.txt: taken as an image without objects"
    assert not reading.faults[0].is_error
    assert len(reading.data) == 3


def test_no_label_file_at_all_is_an_error(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "label")
    reading = read_yolo(path)
    assert kinds(reading.faults) == ["missing-file"]
    first = tmp_path / "labels" / "train" / "1.txt"
    assert reading.faults[0].message == f"none of 3 images has a label file; the first would be {first}"


def test_a_label_file_without_an_image_is_an_error(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "classes.txt").write_text("van\ncar\n")
    (tmp_path / "labels" / "train" / "9.txt").write_text("")
    reading = read_yolo(path)
    assert kinds(reading.faults) == ["no-image"]
    assert "there is no image 9 in" in reading.faults[0].message
    assert reading.faults[0].file.endswith("9.txt")


WRONG = {
    "class out of range": ("2 0.5 0.5 0.2 0.2", "unknown-class", "class 2, but there are 2, counted from 0 (van, car)"),
    "class no integer": ("0.5 0.5 0.5 0.2 0.2", "not-a-number", "the class is '0.5'; it is a whole number from 0"),
    "class by name": ("van 0.5 0.5 0.2 0.2", "not-a-number", "the class is 'van'"),
    "negative class": ("-1 0.5 0.5 0.2 0.2", "not-a-number", "the class is '-1'"),
    "four columns": ("0 0.5 0.5 0.2", "wrong-columns", "has 4 columns; a box has 5 (class cx cy w h)"),
    "a score at the end": ("0 0.5 0.5 0.2 0.2 0.9", "wrong-columns", "has 6 columns"),
    "odd polygon": ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.1", "wrong-columns", "a polygon 7, 9, 11 ..."),
    "class alone": ("0", "wrong-columns", "has 1 columns"),
    "pixels": ("0 30 20 12 8", "not-normalised", "holds 30; values are shares of the image, 0 to 1, and no pixels"),
    "negative share": ("0 -0.2 0.5 0.2 0.2", "not-normalised", "holds -0.2"),
    "pixels in polygon": ("0 0.1 0.1 0.5 0.1 0.5 20", "not-normalised", "holds 20"),
    "negative width": ("0 0.5 0.5 -0.2 0.2", "negative-size", "the box is -0.2 wide and 0.2 high"),
    "zero width": ("0 0.5 0.5 0 0.2", "zero-area", "the box, in pixels x 30 to 30, y 16 to 24, has no area"),
    "text": ("0 0.5 0.5 0.2 x", "not-a-number", "the line holds 'x', which is not a number"),
    "nan": ("0 0.5 0.5 0.2 nan", "not-finite", "the line holds NaN"),
    "partly outside": ("0 0.9 0.5 0.4 0.2", "box-partly-outside", "x 42 to 66, y 16 to 24, reaches 6 px beyond"),
    "polygon without area": ("0 0.1 0.1 0.5 0.5 0.9 0.9", "zero-area", "the mask has no area"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_line_is_one_error(tmp_path: Path, case: str) -> None:
    line, kind, message = WRONG[case]
    reading = read_yolo(write_yolo(tmp_path, f"1 0.25 0.25 0.1 0.1\n{line}"))
    assert kinds(reading.faults) == [kind]
    (fault,) = reading.faults
    assert message in fault.message
    assert fault.is_error
    assert fault.mended
    assert (fault.file, fault.where) == (str(tmp_path / "labels" / "train" / "1.txt"), "line 2")
    assert len(boxes(reading)[0]) == 1 + (kind == "box-partly-outside")


def test_a_pixel_beyond_is_a_remark(tmp_path: Path) -> None:
    reading = read_yolo(write_yolo(tmp_path, "0 0.9 0.5 0.23 0.2\n1 0.5 0.5 1.01 0.5 1.01 0.9"))
    assert kinds(reading.faults) == ["overhang", "overhang"]
    assert [box[2] for box in boxes(reading)[0]] == [60, 60]


def test_a_label_file_that_is_no_text(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "1.txt").write_bytes(b"\xff\xfe0 0")
    reading = read_yolo(path)
    assert kinds(reading.faults) == ["broken-file"]
    assert "is no text" in reading.faults[0].message


def test_a_file_in_two_parts_is_an_error(tmp_path: Path) -> None:
    yaml = "train: [images/train, images/train]\nval: images/train\nnames: [van, car]\n"
    reading = read_yolo(write_yolo(tmp_path, yaml=yaml))
    assert kinds(reading.faults) == ["duplicate-file"] * 2 + ["in-two-parts"] * 2
    assert "1.jpg is in train twice; list it once" in reading.faults[0].message
    assert "1.jpg is in train and in val; keep it in one" in reading.faults[2].message
    assert [image.fields["part"] for image in reading.data.images] == ["train", "train"]


PLACES = {
    "parent": ("../elsewhere", "outside-folder", "'../elsewhere' leaves the data folder"),
    "absolute": ("/etc", "outside-folder", "'/etc' leaves the data folder"),
    "missing": ("images/trian", "missing-file", "'images/trian': nothing there (did you mean 'train'?)"),
    "image": ("images/train/1.jpg", "malformed", "is neither a folder nor a .txt file with a list"),
    "empty": ("void", "empty", "holds no image"),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_part_that_is_not_there_is_an_error(tmp_path: Path, case: str) -> None:
    given, kind, message = PLACES[case]
    (tmp_path / "elsewhere").mkdir()
    path = write_yolo(tmp_path / "set", yaml=f"train: {given}\nval: images/val\nnames: [van, car]\n")
    (tmp_path / "set" / "void").mkdir()
    reading = read_yolo(path)
    assert kinds(reading.faults) == [kind]
    assert message in reading.faults[0].message
    assert reading.faults[0].is_error
    assert reading.faults[0].where == "train"
    assert len(reading.data) == 1


def test_a_list_with_wrong_lines(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, yaml="train: train.txt\nnames: [van, car]\n")
    (tmp_path / "train.txt").write_text("images/train/1.jpg\n../7.jpg\nimages/train/9.jpg\nimages\\train\\2.jpg\n")
    reading = read_yolo(path)
    assert kinds(reading.faults) == ["outside-folder", "missing-file", "other-path"]
    assert [fault.where for fault in reading.faults] == ["line 2", "line 3", "line 4"]
    assert len(reading.data) == 2


def test_formats_that_are_not_read_are_an_error(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    (tmp_path / "images" / "val" / "4.heic").touch()
    reading = read_yolo(path)
    assert kinds(reading.faults) == ["unread-format"]
    assert "1 image in a format that isn't read (4.heic)" in reading.faults[0].message


WHOLE = {
    "no yaml": ("names: [", "is not valid YAML"),
    "python": ("train: images/train\nnames: !!python/object/apply:os.listdir ['.']", "is not valid YAML (could not"),
    "list as a key": ("? [a]\n: b", "is not valid YAML"),
    "list": ("- a", "holds ['a']; it needs names, and train or val"),
    "nothing": ("", "it needs names, and train or val"),
    "no names": ("train: images/train", "'names' is None; name the classes, as in names: [car, van]"),
    "no parts": ("trian: images/train\nnames: [a]", "has none of train, val, test (did you mean 'trian'?)"),
    "part no path": (
        "train: {a: b}\nnames: [a]",
        "'train' is {'a': 'b'}; it should be a folder, a .txt file, or a list",
    ),
    "path no folder": ("path: [a]\ntrain: images/train\nnames: [a]", "'path' is ['a']; it should be a folder"),
    "gap": ("train: images/train\nnames: {0: a, 2: b}", "the numbers in 'names' are 0, 2; count from 0 without gaps"),
    "twice": ("train: images/train\nnames: [a, b, a]", "the class 'a' is in 'names' twice"),
    "empty name": ("train: images/train\nnames: [a, '']", "the class '' in 'names' is no name"),
    "nested name": ("train: images/train\nnames: [[a]]", "the class ['a'] in 'names' is no name"),
    "nc": ("train: images/train\nnames: [a, b]\nnc: 3", "'nc' is '3', but there are 2 names"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_yaml_that_cannot_be_used_is_refused(tmp_path: Path, case: str) -> None:
    text, message = WHOLE[case]
    path = write_yolo(tmp_path, yaml=text)
    with pytest.raises(InputError) as caught:
        read_yolo(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_yaml_is_named(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    with pytest.raises(InputError, match=r"no such file \(did you mean 'data.yaml'\?\)"):
        read_yolo(tmp_path / "daat.yaml")
