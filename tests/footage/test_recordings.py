"""Which recordings there are, whose they are, and when they began."""

from pathlib import Path

import pytest

from visionlora.errors import InputError
from visionlora.footage.recordings import find_recordings, start_in

LAYOUTS = {
    "gate/20240531-120000.mp4": ("gate", "20240531-120000", "2024-05-31T12:00:00"),
    "gate/2024-05-31/12.mkv": ("gate", "2024-05-31_12", "2024-05-31T00:00:00"),
    "2024-05-31/yard/120000.mp4": ("yard", "2024-05-31_120000", "2024-05-31T12:00:00"),
    "north_2024-05-31_12-30-15.avi": ("north", "2024-05-31_12-30-15", "2024-05-31T12:30:15"),
    "Lot 3_20240531T1230.ts": ("Lot", "3_20240531T1230", "2024-05-31T12:30:00"),
    "dock.mp4": ("dock", "dock", None),
    "20240531_120000.mov": ("site", "20240531_120000", "2024-05-31T12:00:00"),
}


@pytest.mark.parametrize("file", LAYOUTS)
def test_a_camera_is_called_as_its_folder_or_file(tmp_path: Path, file: str) -> None:
    path = tmp_path / "site" / file
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / "site" / "notes.txt").touch()
    (found,) = find_recordings([tmp_path / "site"])
    start = None if found.start is None else found.start.isoformat()
    assert (found.path, found.camera, found.name, start) == (path, *LAYOUTS[file])
    (whole,) = find_recordings([tmp_path / "site"], path.stem[0])
    assert whole.name.endswith(path.stem.replace(" ", "_"))
    (given,) = find_recordings([tmp_path / "site"], "mine")
    assert given.camera == "mine"


def test_files_and_folders_together_in_order_and_once(tmp_path: Path) -> None:
    for name in ("b/2.mp4", "b/1.mp4", "a.mkv", "odd.name"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    given = [tmp_path / "odd.name", tmp_path / "b", tmp_path / "a.mkv", tmp_path / "b" / "1.mp4"]
    assert [(each.camera, each.name) for each in find_recordings(given)] == [
        ("a", "a"),
        ("b", "1"),
        ("b", "2"),
        ("odd", "odd"),
    ]


def test_what_cannot_be_told_apart_or_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in ("one/a.mp4", "two/a.mp4", "empty/readme.txt", "gate/b.mp4", "gate/gate_b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="would both be recording a of camera a"):
        find_recordings([tmp_path / "one" / "a.mp4", tmp_path / "two" / "a.mp4"])
    with pytest.raises(InputError, match="would both be recording b of camera gate"):
        find_recordings([tmp_path])
    with pytest.raises(InputError, match="no video in it"):
        find_recordings([tmp_path / "empty"])
    with pytest.raises(InputError, match="no such file or folder"):
        find_recordings([tmp_path / "none.mp4"])


@pytest.mark.parametrize(
    "name", ["gate", "cam_123456", "20241331", "99990101", "gate_20240631", "1234567890123", "x20240531123"]
)
def test_a_number_is_no_date(name: str) -> None:
    assert start_in(name) is None
