"""The list of frames that ``visionlora frames`` writes: of which camera, recording, time and light each image is."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from visionlora.data.faults import shown
from visionlora.errors import InputError
from visionlora.plain_json import read_json

NAME = "frames.jsonl"
"""What the list is called, in the folder above its images."""

RECORDINGS = "recordings"
"""The folder beside it with what was found in each recording."""

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


def holds_frames(folder: Path) -> bool:
    """Whether it is what ``visionlora frames`` left, and not only images that came from there."""
    return (folder / NAME).is_file() and (folder / RECORDINGS).is_dir()


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
        values = read_json(line)
    except InputError as error:
        raise InputError(f"{where}: {error}; write the list anew with visionlora frames") from error
    if not isinstance(values, dict) or set(values) != set(FrameEntry.__dataclass_fields__):
        raise InputError(f"{where}: {shown(values)} is no frame; it has file, camera, recording, frame, seconds ...")
    for name in _TEXT:
        if not isinstance(values[name], str) or not values[name]:
            raise InputError(f"{where}: {name} is {shown(values[name])}; it should be a text")
    if values["file"].startswith("/") or ".." in values["file"].split("/"):
        raise InputError(f"{where}: file is {shown(values['file'])}, outside the list's folder")
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

    An image is found by its path below the list, or else by its name, whatever it ends in: that says camera,
    recording and frame, and stays when images are sorted into folders.

    Args:
        paths: of image files.
        lists: where the lists are, for images that lie elsewhere. By default it is the nearest one in the folders
            above each image.

    Raises:
        InputError: a list can't be read, or an image has the name of two frames.
    """
    wanted = list(paths)
    if lists is not None:
        listed = _Listed([lists] if isinstance(lists, Path) else lists)
        return {path: entry for path in wanted if (entry := listed.find(path)) is not None}
    home: dict[Path, Path | None] = {}
    for folder in {path.parent for path in wanted}:
        above = [folder, *folder.absolute().parents]
        home[folder] = next((one for one in above if (one / NAME).is_file()), None)
    known = {each: _Listed([each]) for each in set(home.values()) if each is not None}
    found = {path: known[top].find(path) for path in wanted if (top := home[path.parent]) is not None}
    return {path: entry for path, entry in found.items() if entry is not None}


class _Listed:
    """The entries of lists, by path and by name."""

    def __init__(self, lists: Sequence[Path]) -> None:
        self._by_path: dict[Path, FrameEntry] = {}
        self._by_name: dict[str, list[FrameEntry]] = {}
        for path in lists:
            folder = (path if path.is_dir() else path.parent).absolute()
            for entry in read_frames(path):
                self._by_path[folder / entry.file] = entry
                self._by_name.setdefault(Path(entry.file).stem, []).append(entry)

    def find(self, image: Path) -> FrameEntry | None:
        if (entry := self._by_path.get(image.absolute())) is not None:
            return entry
        named = self._by_name.get(image.stem, [])
        if len(named) > 1:
            raise InputError(
                f"{image}: {len(named)} frames are called so ({named[0].file}, {named[1].file}); rename one"
            )
        return named[0] if named else None
