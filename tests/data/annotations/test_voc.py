"""Pascal VOC: what is read from a sound folder, and each thing that can be wrong."""

from pathlib import Path
from typing import Any

import pytest

from helpers.annotation_sets import SIZE, boxes, kinds, voc_object, voc_text, write_image, write_parts, write_voc
from visionlora.data.annotations.layouts import examine_annotations
from visionlora.data.annotations.voc import find_voc_sets, read_voc, voc_parts
from visionlora.errors import InputError


def test_a_sound_folder_reads_without_a_fault(tmp_path: Path) -> None:
    reading = read_voc(write_voc(tmp_path))
    assert reading.faults == []
    assert reading.data.classes == ["car", "van"]
    assert [thing.label for thing in reading.data.images[0].objects] == [1, 0]
    assert [thing.source for thing in reading.data.images[0].objects] == ["object 1", "object 2"]
    assert reading.data.images[0].path == tmp_path / "JPEGImages" / "1.jpg"
    assert reading.data.images[1].objects == ()
    assert reading.data.images[0].fields == {}


def test_coordinates_count_from_one_and_the_last_pixel_is_inside(tmp_path: Path) -> None:
    """VOC's whole image is xmin 1, ymin 1, xmax width, ymax height."""
    whole = voc_object(xmin=1, ymin=1, xmax=60, ymax=40)
    reading = read_voc(write_voc(tmp_path, voc_text(whole, voc_object(xmin=11, ymin=11.5, xmax=30, ymax=20))))
    assert reading.faults == []
    assert boxes(reading)[0] == [(0, 0, 60, 40), (10, 10.5, 30, 20)]


def test_a_box_counted_from_zero_is_a_remark(tmp_path: Path) -> None:
    reading = read_voc(write_voc(tmp_path, voc_text(voc_object(xmin=0, ymin=0, xmax=59, ymax=39))))
    assert kinds(reading.faults) == ["overhang"]
    text = "the box xmin 0, ymin 0, xmax 59, ymax 39 (counted from 1) reaches 1 px beyond the image of 60 x 40"
    assert reading.faults[0].message == text
    assert boxes(reading)[0] == [(0, 0, 59, 39)]


def test_a_flat_folder_is_read(tmp_path: Path) -> None:
    write_voc(tmp_path)
    for folder in ("JPEGImages", "Annotations"):
        for file in (tmp_path / folder).iterdir():
            file.rename(tmp_path / file.name)
        (tmp_path / folder).rmdir()
    reading = read_voc(tmp_path)
    assert (reading.faults, len(reading.data)) == ([], 2)


def test_subfolders_are_read(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_image(tmp_path / "JPEGImages" / "north" / "1.jpg", 5)
    (tmp_path / "Annotations" / "north").mkdir()
    (tmp_path / "Annotations" / "north" / "1.xml").write_text(voc_text(voc_object()))
    write_parts(tmp_path, train="1\n2", val="north/1")
    reading = read_voc(tmp_path)
    assert reading.faults == []
    assert [image.fields["part"] for image in reading.data.images] == ["train", "train", "val"]


def test_parts_are_the_lists_of_images(tmp_path: Path) -> None:
    write_parts(write_voc(tmp_path), train="1", val="2", trainval="1\n2", van_train="1  1\n2 -1")
    assert voc_parts(tmp_path) == ["train", "val"]
    assert [image.fields["part"] for image in read_voc(tmp_path).data.images] == ["train", "val"]
    (only,) = read_voc(tmp_path, part="val").data.images
    assert only.path.name == "2.jpg"
    assert len(read_voc(tmp_path, part="trainval").data) == 2
    with pytest.raises(InputError, match=r"no part 'vall' in ImageSets/Main \(did you mean 'val'\?\); the parts are"):
        read_voc(tmp_path, part="vall")
    with pytest.raises(InputError, match="no part"):
        read_voc(tmp_path, part="../../1")


def test_trainval_stands_where_its_halves_are_missing(tmp_path: Path) -> None:
    write_parts(write_voc(tmp_path), trainval="1")
    assert voc_parts(tmp_path) == ["trainval"]
    assert [image.fields["part"] for image in read_voc(tmp_path).data.images] == ["trainval", "no part"]


def test_faults_of_the_lists(tmp_path: Path) -> None:
    write_parts(write_voc(tmp_path), train="1\n2\n2\n7", val="2")
    reading = read_voc(tmp_path)
    assert sorted(kinds(reading.faults)) == ["duplicate-file", "in-two-parts", "missing-file"]
    messages = {fault.kind: str(fault) for fault in reading.faults}
    assert "train.txt: lists '2' 2 times" in messages["duplicate-file"]
    assert "2.xml: is in train, val; keep it in one" in messages["in-two-parts"]
    assert "train.txt: lists '7', which has no .xml file" in messages["missing-file"]
    assert all(fault.is_error for fault in reading.faults)


@pytest.mark.parametrize("given", ["", "VOCdevkit", "VOCdevkit/VOC2012", "VOCdevkit/VOC2012/Annotations"])
def test_the_devkit_is_read_with_its_parts_from_any_of_its_folders(tmp_path: Path, given: str) -> None:
    home = write_voc(tmp_path / "VOCdevkit" / "VOC2012")
    write_parts(home, train="1", val="2", trainval="1\n2", car_train="1  1")
    write_image(home / "SegmentationClass" / "1.png", 1)
    reading = examine_annotations(tmp_path / given)
    assert reading.faults == []
    assert [image.fields["part"] for image in reading.data.images] == ["train", "val"]
    assert [image.path.name for image in reading.data.images] == ["1.jpg", "2.jpg"]


def test_of_several_years_one_is_to_be_named(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write_voc(tmp_path / year)
    with pytest.raises(InputError, match=r"several data sets of Pascal VOC \(VOC2007, VOC2012\); name the one"):
        examine_annotations(tmp_path)
    assert examine_annotations(tmp_path / "VOC2007").faults == []


@pytest.mark.parametrize("given", ["", "annotations", "annotations/xmls"])
def test_masks_with_the_names_of_the_images_are_no_images(tmp_path: Path, given: str) -> None:
    """Oxford-IIIT Pet: annotations/xmls and annotations/trimaps, and images beside annotations."""
    write_voc(tmp_path)
    (tmp_path / "JPEGImages").rename(tmp_path / "images")
    (tmp_path / "Annotations").rename(tmp_path / "xmls")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "xmls").rename(tmp_path / "annotations" / "xmls")
    for number in (1, 2):
        write_image(tmp_path / "annotations" / "trimaps" / f"{number}.png", number)
    reading = examine_annotations(tmp_path / given)
    assert reading.faults == []
    assert [image.path for image in reading.data.images] == [tmp_path / "images" / name for name in ("1.jpg", "2.jpg")]


def test_images_and_annotations_by_their_usual_names_make_a_data_set(tmp_path: Path) -> None:
    home = write_voc(tmp_path / "site" / "yard")
    assert find_voc_sets(home) == find_voc_sets(tmp_path / "site") == find_voc_sets(tmp_path) == [home]
    assert find_voc_sets(home / "JPEGImages") == []


def test_difficult_objects_become_crowds(tmp_path: Path) -> None:
    reading = read_voc(write_voc(tmp_path, voc_text(voc_object(difficult=1), voc_object("car", 31, 6, 38, 13))))
    assert kinds(reading.faults) == ["difficult"]
    assert [thing.crowd for thing in reading.data.images[0].objects] == [True, False]


def test_parts_of_an_object_have_boxes_of_their_own(tmp_path: Path) -> None:
    head = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    text = voc_text(voc_object().replace("</difficult>", f"</difficult>{head}"))
    assert boxes(read_voc(write_voc(tmp_path, text)))[0] == [(10, 10, 30, 20)]


BOMB = (
    "<!DOCTYPE a [<!ENTITY x0 'xxxxxxxxxx'>"
    + "".join(f"<!ENTITY x{n} '{f'&x{n - 1};' * 10}'>" for n in range(1, 12))
    + "]><annotation><filename>&x11;</filename></annotation>"
)
FILE = "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><annotation><filename>&x;</filename></annotation>"
WRONG: dict[str, tuple[str | bytes, str, str, int]] = {
    "broken": ("<annotation>", "broken-file", "is no XML that can be read (no element found", 0),
    "empty": ("", "broken-file", "is no XML that can be read", 0),
    "binary": (b"\xff\xfe\x00\x01", "broken-file", "is no XML that can be read", 0),
    "encoding": (
        b"<?xml version='1.0' encoding='klingon'?><annotation/>",
        "broken-file",
        "is no XML that can be read",
        0,
    ),
    "doctype": ("<!DOCTYPE annotation><annotation/>", "broken-file", "it has a DOCTYPE", 0),
    "entities": (BOMB, "broken-file", "it has a DOCTYPE", 0),
    "other files": (FILE, "broken-file", "it has a DOCTYPE", 0),
    "doctype in UTF-16": (FILE.encode("utf-16"), "broken-file", "it has a DOCTYPE", 0),
    "another root": ("<html/>", "broken-file", "begins with <html>, and Pascal VOC with <annotation>", 0),
    "xmin after xmax": (
        voc_text(voc_object(xmin=31)),
        "negative-size",
        "xmin 31, ymin 11, xmax 30, ymax 20 ends before it",
        1,
    ),
    "half a pixel after": (voc_text(voc_object(xmin=30.5)), "negative-size", "ends before it begins", 1),
    "xmin at xmax": (voc_text(voc_object(xmin=30)), "zero-area", "xmin 30, ymin 11, xmax 30, ymax 20 has no area", 0),
    "outside": (voc_text(voc_object(xmin=70, xmax=80)), "box-outside", "lies outside the image of 60 x 40", 0),
    "partly outside": (voc_text(voc_object(xmax=70)), "box-partly-outside", "reaches 10 px beyond", 1),
    "text": (voc_text(voc_object(xmin="left")), "not-a-number", "<bndbox> holds 'left', which is not a number", 0),
    "nothing": (voc_text(voc_object(xmin="")), "not-a-number", "<bndbox> holds ''", 0),
    "nan": (voc_text(voc_object(xmin="nan")), "not-finite", "<bndbox> holds NaN", 0),
    "no side": (voc_text(voc_object().replace("xmin", "x")), "not-a-number", "<bndbox> holds None", 0),
    "no box": (voc_text(voc_object().replace("bndbox", "box")), "malformed", "has no <bndbox>", 0),
    "no class": (voc_text(voc_object(name=" ")), "malformed", "<name> is ''", 0),
    "difficult": (voc_text(voc_object(difficult="yes")), "malformed", "<difficult> is 'yes'; it is 0 or 1", 0),
    "other size": (
        voc_text(voc_object(), size=SIZE.replace("60", "61")),
        "wrong-size",
        "annotated as 61 x 40, but 1.jpg has 60 x 40",
        0,
    ),
    "size as text": (voc_text(voc_object(), size=SIZE.replace("60", "wide")), "not-a-number", "<size> holds 'wide'", 0),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_error(tmp_path: Path, case: str) -> None:
    text, kind, message, objects = WRONG[case]
    reading = read_voc(write_voc(tmp_path, text))
    assert kinds(reading.faults) == [kind]
    (fault,) = reading.faults
    assert message in fault.message
    assert "\n" not in str(fault)
    assert fault.is_error
    assert fault.mended
    assert fault.file.endswith("1.xml")
    kept = [thing for image in reading.data.images for thing in image.objects]
    assert len(kept) == objects


def test_no_size_is_a_remark(tmp_path: Path) -> None:
    reading = read_voc(write_voc(tmp_path, voc_text(voc_object(), size="")))
    assert kinds(reading.faults) == ["no-size"]
    assert not reading.faults[0].is_error
    assert reading.data.images[0].width == 60


def test_annotations_of_the_stored_pixels_are_turned(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, voc_text(voc_object(xmin=11, ymin=6, xmax=30, ymax=13)))
    write_image(folder / "JPEGImages" / "1.jpg", 1, orientation=6)
    reading = read_voc(folder)
    assert kinds(reading.faults) == ["exif-size"]
    assert boxes(reading)[0] == [(40 - 13, 10, 40 - 5, 30)]


def test_the_image_has_the_name_of_the_xml_file(tmp_path: Path) -> None:
    """Renamed images often leave a stale <filename> behind; the devkit goes by the name of the XML file."""
    reading = read_voc(write_voc(tmp_path, voc_text(voc_object(), filename="9.jpg")))
    assert (reading.faults, reading.data.images[0].path.name) == ([], "1.jpg")
    reading = read_voc(write_voc(tmp_path, voc_text(voc_object(), filename="2.jpg")))
    assert kinds(reading.faults) == ["other-path"]
    assert "<filename> is '2.jpg', but 1.jpg has the name of the XML file and is taken" in reading.faults[0].message


def test_filename_counts_where_no_image_has_the_name(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, voc_text(voc_object(), filename="photo.jpg"))
    (folder / "JPEGImages" / "1.jpg").rename(folder / "JPEGImages" / "photo.jpg")
    reading = read_voc(folder)
    assert (reading.faults, reading.data.images[0].path.name) == ([], "photo.jpg")


@pytest.mark.parametrize(
    ("filename", "kind"), [("1.jpg", "missing-file"), ("", "missing-file"), ("../1.jpg", "outside-folder")]
)
def test_a_missing_image_is_an_error(tmp_path: Path, filename: str, kind: str) -> None:
    folder = write_voc(tmp_path, voc_text(voc_object(), filename=filename))
    (folder / "JPEGImages" / "1.jpg").unlink()
    reading = read_voc(folder)
    assert kinds(reading.faults) == [kind]
    assert len(reading.data) == 1


def test_two_files_about_one_image_are_merged(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    (folder / "Annotations" / "1b.xml").write_text(voc_text(voc_object("car", 2, 2, 9, 9)))
    reading = read_voc(folder)
    assert kinds(reading.faults) == ["duplicate-file"]
    assert "is about 1.jpg, as 1.xml is" in reading.faults[0].message
    assert len(boxes(reading)[0]) == 3


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "set")
    (folder / "JPEGImages" / "1.jpg").unlink()
    (folder / "JPEGImages" / "1.jpg").symlink_to(write_image(tmp_path / "secret.jpg"))
    assert kinds(read_voc(folder).faults) == ["outside-folder"]


@pytest.mark.parametrize(("make", "message"), [(True, "holds no .xml files"), (False, "no such folder")])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    folder = tmp_path / "set"
    if make:
        folder.mkdir()
    with pytest.raises(InputError, match=message):
        read_voc(folder)
