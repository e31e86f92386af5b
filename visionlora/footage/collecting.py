"""Frames of many recordings in one folder, with a list of them: resumed where it was stopped, and added to later.

    frames.jsonl                        the list: a line for each image, see ``data.frame_manifest``
    images/CAMERA/CAMERA_RECORDING_000123.jpg
    recordings/CAMERA/RECORDING.jsonl   the frames of one recording, and what was found about it in the last line;
                                        while it is worked at, it ends in .part

A frame that is in one of these lists has its image; whoever is killed in between goes on behind the last of them.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from visionlora.data.frame_manifest import NAME, RECORDINGS, FrameEntry, time_of
from visionlora.data.near_duplicates import Kept, fingerprint
from visionlora.data.video import DamagedVideo, Frame, VideoFrames
from visionlora.errors import InputError
from visionlora.files import new_file, sync
from visionlora.footage.frames import IMAGES, save_image
from visionlora.footage.light import light_of
from visionlora.footage.recordings import Recording
from visionlora.plain_json import read_json
from visionlora.training.lock import LOCK

NEAR = 8
"""Bits out of 256 (``near_duplicates.fingerprint``) up to which a frame is dropped. Measured on a campus camera at 10
frames per second: a frame differs from the next in 8 or less, from the one a second later in 10 or more."""


@dataclass(frozen=True)
class Thinning:
    """Which frames are kept.

    Attributes:
        every: each so many-th, where ``period`` is 0.
        period: the first of each so many seconds.
        near: of these, those that differ in more bits than this from each that was kept of the recording before; -1
            keeps all.
    """

    every: int = 1
    period: float = 0.0
    near: int = NEAR


@dataclass(frozen=True)
class Found:
    """What came of one recording: the last line of its list.

    Attributes:
        source: the file's name, and ``bytes`` its size.
        camera, recording: by name.
        start: when it began, as ISO 8601, and ``start_from`` by what: ``given``, ``name`` or ``file``; None if unknown.
        frames: images there are of it; ``near_duplicates`` were dropped, ``lights`` counts them by light.
        damage: what is damaged, in a line, or nothing; ``damaged`` are the spans, from and to, in seconds.
        remarks: what is odd and no damage.
        thinning: how it was thinned.
    """

    source: str
    bytes: int
    camera: str
    recording: str
    start: str | None
    start_from: str | None
    frames: int
    near_duplicates: int
    lights: dict[str, int]
    damage: str
    damaged: list[tuple[float, float]]
    remarks: list[str]
    thinning: Thinning


@dataclass
class _Progress:
    """How far the list of a recording is."""

    frames: int = 0
    dropped: int = 0
    last: int = -1
    lights: dict[str, int] = field(default_factory=dict)


class Collection:
    """A folder of frames that recordings are added to.

    Args:
        out: absent, empty, or such a folder.
        thinning: of the recordings that are added.

    Raises:
        InputError: ``out`` is something else.
    """

    def __init__(self, out: Path, thinning: Thinning) -> None:
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: is a file; give a folder for the frames")
        there = {path.name for path in out.iterdir()} - {LOCK} if out.is_dir() else set()
        if there and RECORDINGS not in there:
            raise InputError(
                f"{out}: is not empty, and holds no frames of recordings that could be added to; give another folder"
            )
        self.out, self.thinning = out, thinning

    def done(self, recording: Recording, start: datetime | None = None) -> Found | None:
        """What came of it, if it was finished before; ``start`` as in ``add``.

        Raises:
            InputError: what is there is of another file of that name, or was thinned or dated otherwise.
        """
        path = self._list_of(recording)
        if not path.is_file():
            return None
        found = _read_found(path)
        if found.bytes != recording.path.stat().st_size:
            raise InputError(
                f"{path}: is of a file {found.source} of {found.bytes} bytes, and {recording.path} has "
                f"{recording.path.stat().st_size}; rename the new one, or remove the list and its images"
            )
        if found.thinning != self.thinning:
            raise InputError(
                f"{path}: was made with {_said(found.thinning)}, and not {_said(self.thinning)}; {_ANOTHER}"
            )
        if start is not None and found.start != start.isoformat():
            raise InputError(f"{path}: was made with its start at {found.start}; {_ANOTHER}")
        return found

    def add(
        self,
        recording: Recording,
        video: VideoFrames,
        start: datetime | None = None,
        on_seconds: Callable[[float], None] | None = None,
    ) -> Found:
        """Save the frames of a recording that isn't done, going on where it was stopped.

        Args:
            recording: which; ``video`` is its file, opened with this thinning.
            video: replaced by one that passes over what is there already.
            start: when it began, if that is known better than by its name or its file.
            on_seconds: called with the seconds of the recording that have been seen.

        Raises:
            InputError: its frames can't be read any more, or the list that is there was begun otherwise.
        """
        path = self._list_of(recording)
        part = path.with_name(f"{path.name}.part")
        for folder in (path.parent, self.out / IMAGES / recording.camera):
            folder.mkdir(parents=True, exist_ok=True)
        began, start_from = _start(recording, video, start)
        size = recording.path.stat().st_size
        iso = None if began is None else began.isoformat()
        head = {"source": recording.path.name, "bytes": size, "start": iso, "thinning": asdict(self.thinning)}
        kept, progress = Kept(self.thinning.near), _Progress()
        with part.open("r+b" if part.exists() else "w+b") as file:
            _go_on(file, head, kept, progress, part)
            reading = VideoFrames(video.path, self.thinning.every, self.thinning.period, progress.last)
            damage = ""
            try:
                for frame in reading:
                    self._look(frame, recording, began, kept, progress, file)
                    if on_seconds is not None:
                        on_seconds(frame.seconds)
            except DamagedVideo as error:
                damage = str(error)
            found = Found(
                source=recording.path.name,
                bytes=size,
                camera=recording.camera,
                recording=recording.name,
                start=iso,
                start_from=start_from,
                frames=progress.frames,
                near_duplicates=progress.dropped,
                lights=progress.lights,
                damage=damage,
                damaged=[(round(one, 3), round(other, 3)) for one, other in reading.damaged],
                remarks=reading.remarks,
                thinning=self.thinning,
            )
            _write(file, asdict(found))
        sync(part)
        part.replace(path)
        sync(path.parent)
        return found

    def finish(self) -> int:
        """Write the list of all frames of all recordings that are done; their number."""
        count = 0
        with new_file(self.out / NAME) as temporary, temporary.open("w", encoding="utf-8") as file:
            for path in sorted((self.out / RECORDINGS).glob("*/*.jsonl")):
                for line in _frame_lines(path):
                    del line["print"], line["dropped"]
                    file.write(json.dumps(line) + "\n")
                    count += 1
        return count

    def files(self, recording: Recording) -> dict[int, str]:
        """Number of each frame that there is of a recording that is done -> its image, as the list has it."""
        return {line["frame"]: line["file"] for line in _frame_lines(self._list_of(recording))}

    def _list_of(self, recording: Recording) -> Path:
        return self.out / RECORDINGS / recording.camera / f"{recording.name}.jsonl"

    def _look(
        self,
        frame: Frame,
        recording: Recording,
        began: datetime | None,
        kept: Kept,
        progress: _Progress,
        file: BinaryIO,
    ) -> None:
        """Save a frame, or drop it."""
        image = Image.fromarray(frame.image)
        bits = fingerprint(image)
        if not kept.is_new(bits):
            progress.dropped += 1
            return
        kept.add(bits)
        camera, name = recording.camera, recording.name
        stem = camera if name == camera else f"{camera}_{name}"
        place = f"{IMAGES}/{camera}/{stem}_{frame.number:06d}.jpg"
        save_image(image, self.out / place)
        seconds, light = round(frame.seconds, 6), light_of(image)
        entry = FrameEntry(place, camera, name, frame.number, seconds, time_of(began, seconds), light)
        _write(file, {**asdict(entry), "print": bits.hex(), "dropped": progress.dropped})
        progress.frames += 1
        progress.lights[light] = progress.lights.get(light, 0) + 1


_ANOTHER = "give the same, or another --out"
_REMOVE = "remove it, and the recording is read anew"


def _start(recording: Recording, video: VideoFrames, given: datetime | None) -> tuple[datetime | None, str | None]:
    """A date in the file's name counts more than one in the file, which is often that of an export."""
    for time, source in ((given, "given"), (recording.start, "name"), (video.created, "file")):
        if time is not None:
            return time, source
    return None, None


def _go_on(file: BinaryIO, head: dict[str, Any], kept: Kept, progress: _Progress, path: Path) -> None:
    """Read what a process before this one has listed, without a line that it didn't finish; or write the head."""
    file.seek(0)
    whole = 0
    # The last line is left away, too, where it was killed before the file had its new name.
    while (line := file.readline()).endswith(b"\n") and "frames" not in (values := _parsed(line, path)):
        if not whole and values != head:
            raise InputError(f"{path}: was begun with another file or other settings; {_ANOTHER}")
        if whole:
            kept.add(bytes.fromhex(values["print"]))
            progress.frames, progress.dropped = progress.frames + 1, values["dropped"]
            progress.last = values["frame"]
            progress.lights[values["light"]] = progress.lights.get(values["light"], 0) + 1
        whole = file.tell()
    file.truncate(whole)
    file.seek(whole)
    if not whole:
        _write(file, head)


def _write(file: BinaryIO, values: dict[str, Any]) -> None:
    """A line that is there when the process is killed."""
    file.write(json.dumps(values).encode() + b"\n")
    file.flush()


def _frame_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Of the list of a recording that is done."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            values = _parsed(line, path)
            if number and "frames" not in values:
                yield values


def _read_found(path: Path) -> Found:
    with path.open("rb") as file:
        line = deque(file, 1)[0] if path.stat().st_size else b""
    try:
        values = _parsed(line, path)
        return Found(**{**values, "thinning": Thinning(**values["thinning"])})
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged: its last line isn't of a recording; {_REMOVE}") from error


def _parsed(line: bytes, path: Path) -> dict[str, Any]:
    try:
        values = read_json(line)
    except InputError as error:
        raise InputError(f"{path}: is damaged: {error}; {_REMOVE}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: is damaged: a line of it is no JSON object; {_REMOVE}")
    return values


def _said(thinning: Thinning) -> str:
    every = f"{thinning.period:g}s" if thinning.period else thinning.every
    return f"--every {every} --near {thinning.near}"
