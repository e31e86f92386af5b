"""root/class/**/image."""

from pathlib import Path

import pytest

from visionlora.data.classification.folder_labels import read_folder
from visionlora.errors import InputError


def touch(root: Path, *names: str) -> Path:
    """Empty files: a layout is read without opening an image."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def message(root: Path, classes: list[str] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_folder(root, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_and_images_are_sorted_and_deep_ones_found(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.JPG", "b/1.png", "a/day1/x.jpg", "a/a.webp")
    data = read_folder(tmp_path)
    assert data.classes == ["a", "b"]
    assert [str(path.relative_to(tmp_path)) for path in data.paths] == [
        "a/a.webp",
        "a/day1/x.jpg",
        "b/1.png",
        "b/2.JPG",
    ]
    assert data.labels == [(0,), (0,), (1,), (1,)]
    assert data.counts() == [2, 2]
    assert not data.multilabel


def test_hidden_and_other_files_are_not_images(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "a/.2.jpg", "a/notes.txt", ".cache/1.jpg", "a/.thumbs/1.jpg", "0.jpg")
    data = read_folder(tmp_path)
    assert data.classes == ["a", "b"]
    assert len(data) == 2


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.jpg", "root/a/1.jpg", "root/b/1.jpg")
    (tmp_path / "root/a/more").symlink_to(tmp_path / "elsewhere")
    assert read_folder(tmp_path / "root").counts() == [2, 1]


def test_given_classes_set_the_order_and_may_be_absent(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "c/1.jpg")
    data = read_folder(tmp_path, ["c", "b", "a"])
    assert data.classes == ["c", "b", "a"]
    assert data.labels == [(0,), (2,)]
    assert data.counts() == [1, 0, 1]


def test_a_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "bees/1.jpg", "ant/1.jpg")
    assert "class folder 'ant' is not among the training classes ants, bees (did you mean 'ants'?)" in message(
        tmp_path, ["ants", "bees"]
    )


def test_a_missing_folder_shows_what_there_is(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "val/a/1.jpg")
    assert "no such folder (did you mean 'train'?)" in message(tmp_path / "trian")
    assert f"no such folder; {tmp_path} holds train, val" in message(tmp_path / "xyzxyz" / "deeper")
    assert "is a file" in message(tmp_path / "train/a/1.jpg")


def test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    assert "no class folders" in message(touch(tmp_path, "1.jpg", "2.jpg"))
    assert "2 images directly in it" in message(tmp_path)


def test_the_folder_above_the_splits_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg")
    assert f"give one of them, as in {tmp_path / 'train'}" in message(tmp_path)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/notes.txt")
    assert "class 'b' has no image" in message(tmp_path)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    assert "only one class (a)" in message(touch(tmp_path, "a/1.jpg"))


def test_images_in_a_format_that_is_not_read_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.HEIC", "b/1.jpg")
    assert "1 image in a format that isn't read (2.HEIC)" in message(tmp_path)
