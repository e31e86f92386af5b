"""Names as annotation files write them: the file that is meant, with a remark, an error that can be mended, or none."""

import unicodedata
from pathlib import Path

import pytest

from helpers.annotation_sets import entry, kinds, write_coco, write_image
from visionlora.data.annotations.layouts import examine_annotations, read_annotations
from visionlora.data.checks.check_data import check
from visionlora.data.faults import Fault, Spot
from visionlora.data.file_names import ImageFolder
from visionlora.errors import InputError


def found(root: Path, name: object, *files: str) -> tuple[str | None, list[Fault]]:
    """The file inside ``root``, and the faults."""
    for number, file in enumerate(files):
        write_image(root / file, number)
    faults: list[Fault] = []
    path = ImageFolder(root).locate(name, Spot(root / "a.json", "image 1", faults))
    return (None if path is None else path.relative_to(root).as_posix()), faults


@pytest.mark.parametrize(
    ("written", "file", "message"),
    [
        ("a/1.jpg", "a/1.jpg", ""),
        ("./a/1.jpg", "a/1.jpg", ""),
        ("a\\1.jpg", "a/1.jpg", "has Windows separators; write them as /"),
        ("gate%20cam%201.jpg", "gate cam 1.jpg", "is encoded as in a URL; 'gate cam 1.jpg' is taken"),
        ("100%25.jpg", "100%25.jpg", ""),  # a file may be called so
        ("IMG_1.JPG", "img_1.jpg", "in other capitals: the only file of that name is at img_1.jpg"),
        ("A/1.jpg", "a/1.jpg", "in other capitals: the only file of that name is at a/1.jpg"),
        (unicodedata.normalize("NFD", "café.jpg"), unicodedata.normalize("NFC", "café.jpg"), "another Unicode form"),
        (unicodedata.normalize("NFC", "café.jpg"), unicodedata.normalize("NFD", "café.jpg"), "another Unicode form"),
    ],
)
def test_the_same_path_spelled_otherwise_is_taken_with_a_remark(
    tmp_path: Path, written: str, file: str, message: str
) -> None:
    path, faults = found(tmp_path, written, file, "other.jpg")
    assert path == file
    assert kinds(faults) == (["other-path"] if message else [])
    assert not faults or (message in faults[0].message and faults[0].mended and not faults[0].is_error)


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("1.jpg", "a/b/1.jpg"),
        ("train/1.jpg", "1.jpg"),
        ("..\\..\\media\\upload\\4\\cb06-a.png", "images/cb06-a.png"),
        ("../1.jpg", "images/1.jpg"),
        ("images\\1/90fb-a.jpg", "images/90fb-a.jpg"),
        ("/home/ann/set/1.jpg", "images/1.jpg"),
        ("C:\\Users\\ann\\1.JPG", "images/1.jpg"),
        ("file:///home/ann/gate%20cam.jpg", "images/gate cam.jpg"),
        ("https://x.org/a/1.jpg?size=2.5", "images/1.jpg"),
        ("images/0a1b2c3d-1.jpg", "1.jpg"),  # as uploaded, and as it was called before
        ("1.jpg", "images/0a1b2c3d-1.jpg"),
        ("12345678-1234-1234-1234-123456789abc-a.jpg", "a.jpg"),
        ("frames/frame_000010", "frame_000010.png"),
    ],
)
def test_the_only_file_of_that_name_is_an_error_that_can_be_mended(tmp_path: Path, written: str, file: str) -> None:
    path, faults = found(tmp_path, written, file, "b/other.jpg")
    assert path == file
    assert kinds(faults) == ["elsewhere"]
    assert f"the only file of that name is at {file}; correct the path" in faults[0].message
    assert faults[0].is_error and faults[0].mended == f"{file} taken"


def test_of_several_the_one_that_shares_folders_is_meant(tmp_path: Path) -> None:
    files = ("north/day/1.jpg", "south/day/1.jpg")
    assert found(tmp_path, "D:\\cams\\north\\day\\1.jpg", *files)[0] == files[0]
    path, faults = found(tmp_path, "west/day/1.jpg")
    assert path is None
    text = "'west/day/1.jpg' is not there, and 2 files have that name: north/day/1.jpg, south/day/1.jpg; write which"
    assert faults[0].kind == "missing-file" and faults[0].message.startswith(text)


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("2.jpg", "missing-file"),
        ("../2.jpg", "outside-folder"),
        ("/etc/passwd", "outside-folder"),
        ("..", "outside-folder"),
        ("", "malformed"),
        ("a\x00b", "missing-file"),
        (None, "malformed"),
        (7, "malformed"),
        ("x" * 5000, "missing-file"),
    ],
)
def test_a_name_of_nothing_is_an_error(tmp_path: Path, written: object, kind: str) -> None:
    path, faults = found(tmp_path, written, "1.jpg")
    assert (path, kinds(faults)) == (None, [kind])
    assert str(faults[0]).isprintable()


def test_nothing_outside_the_folder_is_ever_taken(tmp_path: Path) -> None:
    write_image(tmp_path / "1.jpg")
    (tmp_path / "set").mkdir()
    assert found(tmp_path / "set", "../1.jpg")[0] is None
    assert found(tmp_path / "set", str(tmp_path / "1.jpg"))[0] is None
    (tmp_path / "set" / "link.jpg").symlink_to(tmp_path / "1.jpg")
    path, faults = found(tmp_path / "set", "sub/link.jpg")
    assert path is None and faults[-1].kind == "outside-folder"


def test_fix_takes_the_file(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "set", lambda d: d["images"].__setitem__(0, entry(1, file_name="..\\media\\1.jpg")))
    assert kinds(examine_annotations(path).faults) == ["elsewhere"]
    with pytest.raises(InputError, match=r"the only file of that name is at images/1\.jpg"):
        read_annotations(path)
    report = check(path, fix=tmp_path / "mended")
    assert report.changes is not None and "images/1.jpg taken" in report.changes[0]
    assert read_annotations(tmp_path / "mended").counts() == [1, 1]
