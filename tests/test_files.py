"""A file is either whole or absent; errors suggest the nearest word."""

import json
from pathlib import Path

import pytest

from visionlora.errors import InputError, did_you_mean, nearest, some
from visionlora.files import write_atomic, write_json


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    for text in ("first", "second"):
        write_atomic(path, lambda temporary, text=text: temporary.write_text(text))  # type: ignore[misc]
        assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the ne")
        raise error

    with pytest.raises(error):
        write_atomic(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    content = {"names": ["Zürich", "東京"], "value": 1.5, "none": None}
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == content


def test_content_that_is_no_json_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_word_ignores_case_and_may_be_none() -> None:
    assert nearest("RESNET5", ["ResNet50", "vit"]) == "ResNet50"
    assert nearest("zzz", ["ResNet50", "vit"]) == ""
    assert nearest("epoch", ["epochs"], 0.7) == "epochs"
    assert nearest("foo", ["root"], 0.7) == ""
    assert did_you_mean("vitt", ["vit"]) == " (did you mean 'vit'?)"
    assert did_you_mean("zzz", ["vit"]) == ""


@pytest.mark.parametrize(("names", "shown"), [([], ""), (["a", "b"], "a, b"), (list("abcdefg"), "a, b and 5 more")])
def test_some_shows_the_first_names_and_counts_the_rest(names: list[str], shown: str) -> None:
    assert some(names, 2) == shown


def test_an_input_error_is_a_value_error() -> None:
    assert issubclass(InputError, ValueError)
