"""A file is either whole or absent; errors suggest the nearest word."""

import json
import os
from pathlib import Path

import pytest

from visionlora.errors import InputError, did_you_mean, nearest, some
from visionlora.files import lengthening_lines, new_file, new_folder, unfinished, write_atomic, write_json


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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_says_who_may_read_what_was_written(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == mode


def test_what_a_killed_write_leaves_is_known_by_its_name(tmp_path: Path) -> None:
    with new_file(tmp_path / "a.b.txt") as temporary:
        assert unfinished(temporary.name) == "a.b.txt"
    with new_folder(tmp_path / "folder") as temporary:
        assert unfinished(temporary.name) == "folder"
    assert unfinished(".step-00000006-0000.tmp") == "step-00000006-0000"
    for name in ("a.txt", "a.tmp", ".tmp", ".hidden", "..tmp", "a.abcd1234.tmp"):
        assert unfinished(name) == ""


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


def test_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.jsonl"
    with lengthening_lines(path) as add:
        assert path.read_text() == ""
        add({"a": 1})
        assert path.read_text() == '{"a": 1}\n'
    with pytest.raises(KeyError), lengthening_lines(path) as add:
        add([2])
        raise KeyError
    assert path.read_text() == '{"a": 1}\n[2]\n'
    path.write_text('{"a": 1}\n{"b"')
    with pytest.raises(OSError, match="ends within a line"), lengthening_lines(path):
        pass
    assert path.read_text() == '{"a": 1}\n{"b"'
