"""The list of frames that ``visionlora frames`` writes: of which camera, recording, time and light each image is."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from visionlora.data.faults import shown
from visionlora.errors import InputError

NAME = "frames.jsonl"
"""What the list is called, in the folder above its images."""

LIGHTS = ("day", "night", "infrared")

_TEXT = ("file", "camera", "recording")
_NUMBERS = ("frame", "seconds")


@dataclass(frozen=True)
class FrameEntry:
    """One image of a recording; a line of the list, as JSON.

    Attributes:
        file: the image, relative to the list's folder, with slashes.
        camera: whose recording it is.
        recording: its name, one of its camera's.
        frame: its number among the decoded frames, from 0.
        seconds: since the recording's first frame, by the file's clock.
        time: ISO 8601, of the day and clock by which the recording's start is known; None if that is not known.
        light: day, night or infrared.
    """

    file: str
    camera: str
    recording: str
    frame: int
    seconds: float
    time: str | None
    light: str

    @property
    def day(self) -> str | None:
        """As 2024-05-31; None if it is not known."""
        return None if self.time is None else self.time[:10]

    def fields(self) -> dict[str, Any]:
        """By what images are chosen: what is known, and the day."""
        known = {**asdict(self), "day": self.day}
        return {name: value for name, value in known.items() if value is not None and name != "file"}


def time_of(start: datetime | None, seconds: float) -> str | None:
    """What ``FrameEntry.time`` says of a frame, to the millisecond."""
    return None if start is None else (start + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def read_frames(path: Path) -> Iterator[FrameEntry]:
    """The entries of a list, or of the list in a folder, one at a time.

    Raises:
        InputError: there is none, it can't be read, or a line is not such an entry.
    """
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path}: no such file; give what visionlora frames wrote, {NAME} or its folder")
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield _entry(line, f"{path}: line {number}")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text (UTF-8), and so no list of frames") from error


def _entry(line: str, where: str) -> FrameEntry:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is no JSON; write the list anew with visionlora frames") from error
    if not isinstance(values, dict) or set(values) != set(FrameEntry.__dataclass_fields__):
        raise InputError(f"{where}: {shown(values)} is no frame; it has file, camera, recording, frame, seconds ...")
    for name in _TEXT:
        if not isinstance(values[name], str) or not values[name]:
            raise InputError(f"{where}: {name} is {shown(values[name])}; it should be a text")
    for name in _NUMBERS:
        if type(values[name]) not in (int, float) or not 0 <= values[name] < float("inf"):
            raise InputError(f"{where}: {name} is {shown(values[name])}; it should be a number from 0")
    if values["light"] not in LIGHTS:
        raise InputError(f"{where}: light is {shown(values['light'])}; it should be day, night or infrared")
    if values["time"] is not None:
        try:
            datetime.fromisoformat(values["time"])
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{where}: time is {shown(values['time'])}; it should be as 2024-05-31T12:00:00"
            ) from error
    return FrameEntry(**values)


def line_of(entry: FrameEntry, file: str) -> str:
    """The entry for a list in which the image lies elsewhere; without the line's end."""
    return json.dumps({**asdict(entry), "file": file})


def fields_of(paths: Iterable[Path], lists: Path | Sequence[Path] | None = None) -> dict[Path, dict[str, Any]]:
    """By what images can be chosen that lists of frames know; as ``entries_of``."""
    return {path: entry.fields() for path, entry in entries_of(paths, lists).items()}


def entries_of(paths: Iterable[Path], lists: Path | Sequence[Path] | None = None) -> dict[Path, FrameEntry]:
    """What lists of frames know of these images; images that no list has are absent.

    Args:
        paths: of image files.
        lists: where the lists are, for images that were moved: found by their file names, which say camera, recording
            and frame. By default each list that lies in a folder above an image, by its path.

    Raises:
        InputError: a list can't be read, or two of its images have one name.
    """
    wanted = list(paths)
    if lists is None:
        return _found_above(wanted)
    known: dict[str, FrameEntry] = {}
    for path in [lists] if isinstance(lists, Path) else lists:
        for entry in read_frames(path):
            name = Path(entry.file).stem
            if known.setdefault(name, entry) != entry:
                raise InputError(f"{path}: {entry.file} has the name of {known[name].file}; images are found by name")
    return {path: known[path.stem] for path in wanted if path.stem in known}


def _found_above(paths: list[Path]) -> dict[Path, FrameEntry]:
    home: dict[Path, Path | None] = {}
    for folder in {path.parent for path in paths}:
        above = [folder, *folder.absolute().parents]
        home[folder] = next((one for one in above if (one / NAME).is_file()), None)
    entries = {each: _by_file(each) for each in set(home.values()) if each is not None}
    found = {}
    for path in paths:
        top = home[path.parent]
        if top is not None:
            entry = entries[top].get(path.absolute().relative_to(top.absolute()).as_posix())
            if entry is not None:
                found[path] = entry
    return found


def _by_file(folder: Path) -> Mapping[str, FrameEntry]:
    return {entry.file: entry for entry in read_frames(folder)}
