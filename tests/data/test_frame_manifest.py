"""The list of frames says of an image, wherever it lies, whose it is and when it was taken."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from visionlora.data.frame_manifest import FrameEntry, fields_of, read_frames, time_of
from visionlora.errors import InputError


def entry(**changed: Any) -> dict[str, Any]:
    plain = {"file": "images/gate/gate_a_000010.jpg", "camera": "gate", "recording": "a", "frame": 10, "seconds": 1.0}
    return {**plain, "time": "2024-05-31T12:00:01.000", "light": "day", **changed}


def write_list(folder: Path, *entries: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "frames.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in entries))
    return path


def test_images_are_found_below_the_list_and_by_their_names_elsewhere(tmp_path: Path) -> None:
    path = write_list(tmp_path / "site", entry(), entry(file="images/gate/gate_a_000020.jpg", frame=20, time=None))
    here = tmp_path / "site" / "images" / "gate" / "gate_a_000010.jpg"
    moved = tmp_path / "labelled" / "train" / "gate_a_000020.png"
    other = tmp_path / "site" / "images" / "gate" / "other.jpg"
    known = {"camera": "gate", "recording": "a", "frame": 10, "seconds": 1.0, "light": "day"}
    dated = {**known, "time": "2024-05-31T12:00:01.000", "day": "2024-05-31"}
    assert fields_of([here, moved, other]) == {here: dated}
    for lists in (path, path.parent, [path]):
        assert fields_of([here, moved, other], lists) == {here: dated, moved: {**known, "frame": 20}}


def test_the_nearest_list_counts(tmp_path: Path) -> None:
    write_list(tmp_path, entry(file="in/images/gate/gate_a_000010.jpg", camera="outer"))
    write_list(tmp_path / "in", entry(camera="inner"))
    image = tmp_path / "in" / "images" / "gate" / "gate_a_000010.jpg"
    assert fields_of([image])[image]["camera"] == "inner"


def test_images_that_were_sorted_below_the_list_are_found_by_their_names(tmp_path: Path) -> None:
    write_list(tmp_path, entry())
    sorted_away = tmp_path / "train" / "van" / "gate_a_000010.png"
    assert fields_of([sorted_away])[sorted_away]["camera"] == "gate"


def test_an_image_with_the_name_of_two_frames_is_refused(tmp_path: Path) -> None:
    write_list(tmp_path / "one", entry())
    write_list(tmp_path / "two", entry(camera="yard"))
    both = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(InputError, match="2 frames are called so"):
        fields_of([Path("gate_a_000010.jpg")], both)
    there = tmp_path / "two" / "images" / "gate" / "gate_a_000010.jpg"
    assert fields_of([there], both)[there]["camera"] == "yard"


def test_times_and_days() -> None:
    assert time_of(None, 3.0) is None
    assert time_of(datetime(2024, 5, 31, 23, 59, 59), 1.5) == "2024-06-01T00:00:00.500"
    assert time_of(datetime(2024, 5, 31, tzinfo=UTC), 0.0) == "2024-05-31T00:00:00.000+00:00"
    assert FrameEntry(**entry(time="2024-06-01T00:00:00.500")).day == "2024-06-01"


BAD = {
    "no JSON": ("{", "not JSON"),
    "too deep": ("[" * 100 + "]" * 100, "nested too deeply"),
    "no object": ("[1]", "is no frame"),
    "a key is missing": (json.dumps({"file": "a.jpg"}), "is no frame"),
    "a number for a name": (json.dumps(entry(camera=3)), "camera is 3"),
    "an empty name": (json.dumps(entry(file="")), "file is ''"),
    "another folder": (json.dumps(entry(file="a/../../b.jpg")), "outside the list's folder"),
    "an absolute path": (json.dumps(entry(file="/etc/b.jpg")), "outside the list's folder"),
    "a text for a number": (json.dumps(entry(frame="1")), "frame is '1'"),
    "a negative number": (json.dumps(entry(seconds=-1)), "seconds is -1"),
    "no number": (json.dumps(entry(seconds=float("nan"))), "seconds is nan"),
    "another light": (json.dumps(entry(light="dusk")), "light is 'dusk'"),
    "no time": (json.dumps(entry(time="noon")), "time is 'noon'"),
    "a number for a time": (json.dumps(entry(time=5)), "time is 5"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_line_that_is_no_frame_is_named(tmp_path: Path, case: str) -> None:
    text, message = BAD[case]
    path = tmp_path / "frames.jsonl"
    path.write_text(json.dumps(entry()) + "\n" + text + "\n")
    with pytest.raises(InputError, match=f"frames.jsonl: line 2: .*{message}"):
        list(read_frames(path))


def test_what_is_no_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; give what visionlora frames wrote"):
        list(read_frames(tmp_path))
    (tmp_path / "frames.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is no text"):
        list(read_frames(tmp_path))
