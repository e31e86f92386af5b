"""Walking through folders for images."""

import os
from pathlib import Path

import pytest

from visionlora.data.classification.folder_labels import read_folder
from visionlora.data.folders import files_in, images_in, subfolders


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in images_in(root)]


def test_a_link_back_is_not_followed_for_ever(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/deep/2.jpg")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "a" / "deep" / "up").symlink_to("..")
    (tmp_path / "a" / "gone").symlink_to("nowhere")
    assert found(tmp_path) == ["a/1.jpg", "a/deep/2.jpg"]
    assert subfolders(tmp_path) == [tmp_path / "a"]


def test_a_folder_that_two_links_lead_to_counts_once_and_by_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "root/real/1.jpg", "elsewhere/2.jpg")
    for name, target in {"0": "real", "b": "../elsewhere", "c": "../elsewhere"}.items():
        (tmp_path / "root" / name).symlink_to(target)
    assert found(tmp_path / "root") == ["b/2.jpg", "real/1.jpg"]


def test_a_loop_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "car/1.jpg", "van/1.jpg")
    (tmp_path / "loop").symlink_to(".")
    assert read_folder(tmp_path).classes == ["car", "van"]


def test_only_regular_files_count(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    (tmp_path / "a" / "3.jpg").mkdir()
    (tmp_path / "a" / "4.jpg").symlink_to("none.jpg")
    (tmp_path / "a" / "5.jpg").symlink_to("1.jpg")
    assert found(tmp_path) == ["a/1.jpg", "a/4.jpg", "a/5.jpg"]  # 4 is named when it is read


@pytest.mark.parametrize(
    "junk",
    [
        ".DS_Store",
        "._1.jpg",
        ".ipynb_checkpoints/1.jpg",
        "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/a/1.jpg",
        "$RECYCLE.BIN/1.jpg",
        ".Trash-1000/files/1.jpg",
        "#recycle/1.jpg",
    ],
)
def test_what_a_system_leaves_behind_is_passed_over(tmp_path: Path, junk: str) -> None:
    touch(tmp_path, "car/1.jpg", "van/1.jpg", junk, f"car/{junk}")
    assert found(tmp_path) == ["car/1.jpg", "van/1.jpg"]
    assert read_folder(tmp_path).counts() == [1, 1]
    assert len(files_in(tmp_path)) == 2


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini"])
def test_files_of_the_system_are_no_images(tmp_path: Path, name: str) -> None:
    assert found(touch(tmp_path, "car/1.JPG", f"car/{name}", name)) == ["car/1.JPG"]
