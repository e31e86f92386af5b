"""``visionlora frames`` of many recordings: one folder with a list of their frames."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from visionlora.cli.show import print_table, progress, say
from visionlora.cli.videos import open_videos, say_passed_over
from visionlora.data.frame_manifest import LIGHTS, NAME
from visionlora.data.video import VideoFrames
from visionlora.errors import InputError, some
from visionlora.files import write_json
from visionlora.footage.collecting import Collection, Found, Thinning
from visionlora.footage.frames import ANNOTATIONS, of_frames, read_counted
from visionlora.footage.recordings import Recording, find_recordings
from visionlora.training.lock import locked

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_PERIOD = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)")
_BUSY = "is saving frames in it; wait for its end, stop it, or give another folder"
_SPANS = 5
"""Damaged spans of a recording that are printed; its list has all."""


@dataclass(frozen=True)
class Every:
    """Each ``count``-th frame, or, if ``period`` isn't 0, the first of each so many seconds."""

    count: int = 1
    period: float = 0.0


def parse_every(text: str) -> Every:
    """What ``--every`` says: a number of frames, or a time such as 1s, 500ms, 2m.

    Raises:
        InputError: it is neither, or zero.
    """
    found = _PERIOD.fullmatch(text)
    if found is not None and float(found[1]) > 0:
        return Every(period=float(found[1]) * _UNITS[found[2]])
    if text.isascii() and text.isdigit() and int(text) > 0:
        return Every(int(text))
    raise InputError(f"--every {text}: should be a number of frames, from 1, or a time, such as 1s, 500ms or 2m")


def parse_start(text: str | None, recordings: Sequence[Recording]) -> datetime | None:
    """What ``--start`` says of the one recording there is."""
    if text is None:
        return None
    if len(recordings) > 1:
        raise InputError(f"--start {text}: is when one recording began, and {len(recordings)} are given")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"--start {text}: should be as 2024-05-31T12:00:00") from error


def collect(
    given: Sequence[Path],
    out: Path,
    every: Every,
    near: int,
    camera: str = "",
    start: str | None = None,
    annotations: Path | None = None,
) -> int:
    """Save the frames under a progress bar, and say what there is; the exit code, 1 if a recording can't be read."""
    recordings = find_recordings(given, camera)
    began = parse_start(start, recordings)
    document = None if annotations is None else _counted(annotations, recordings, out)
    collection = Collection(out, Thinning(every.count, every.period, near))
    before = {each: collection.done(each, began) for each in recordings}
    done = {each: found for each, found in before.items() if found is not None}
    left = {each.path: each for each in recordings if each not in done}
    opened, refused = _open(list(left), alone=len(recordings) == 1)
    if not opened and not done:
        raise InputError(f"none of the {len(recordings)} recordings can be read")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, busy=_BUSY):
        found, more = _save(collection, {left[path]: video for path, video in opened.items()}, began)
        count = collection.finish()
        if document is not None:
            written = of_frames(document, collection.files(recordings[0]), f"{annotations}", recordings[0].path)
            write_json(out / ANNOTATIONS, written)
    if done:
        say(f"{len(done)} of {len(recordings)} recordings were done before")
    _print([*done.values(), *found])
    say(f"{count} frames in {out}, listed in {out / NAME}")
    if document is not None:
        say(f"{out / ANNOTATIONS} has the annotations of those that have some; visionlora check-data looks at them")
    return say_passed_over([*refused, *more])


def _counted(annotations: Path, recordings: Sequence[Recording], out: Path) -> dict[str, Any]:
    """What describes the frames of the one recording there is."""
    if len(recordings) > 1:
        raise InputError(
            f"--annotations {annotations}: counts the frames of one recording, and {len(recordings)} are given"
        )
    if (out / ANNOTATIONS).exists():
        raise InputError(f"{out / ANNOTATIONS}: exists already; move it away, or give another --out")
    return read_counted(annotations, VideoFrames(recordings[0].path))


def _open(paths: Sequence[Path], alone: bool) -> tuple[dict[Path, VideoFrames], list[Path]]:
    """As ``open_videos``, under a bar: of ten thousand recordings it takes minutes."""
    opened: dict[Path, VideoFrames] = {}
    refused: list[Path] = []
    with progress("opening recordings", len(paths)) as advance:
        for path in paths:
            video, bad = open_videos([path], 1, alone)
            opened |= video
            refused += bad
            advance(1)
    return opened, refused


def _save(
    collection: Collection, videos: dict[Recording, VideoFrames], began: datetime | None
) -> tuple[list[Found], list[Path]]:
    """What came of each, and those that can't be read any more, which are told."""
    found, refused = [], []
    sizes = {recording: recording.path.stat().st_size for recording in videos}
    # Not by seconds, which some files don't say.
    with progress("saving frames, MB", _megabytes(sum(sizes.values()))) as advance:
        done = 0
        for recording, video in videos.items():
            size, seen = sizes[recording], done

            def tell(share: float) -> None:
                nonlocal seen
                now = done + int(min(share, 1) * size)  # noqa: B023
                advance(_megabytes(now) - _megabytes(seen))
                seen = now

            try:
                length = video.duration
                on_seconds = None if not length else lambda seconds, length=length: tell(seconds / length)
                found.append(collection.add(recording, video, began, on_seconds))
            except InputError as error:
                if len(videos) == 1:
                    raise
                say(f"passed over: {error}")
                refused.append(recording.path)
            tell(1)
            done += size
    return found, refused


def _megabytes(size: int) -> int:
    return -(-size // 1_000_000)


def _print(found: Sequence[Found]) -> None:
    for each in found:
        for line in (each.damage, *each.remarks):
            if line:
                say(line)
        if each.damaged:
            spans = [f"{start:.1f} to {end:.1f} s" for start, end in each.damaged[:_SPANS]]
            more = f" and {len(each.damaged) - _SPANS} more" if len(each.damaged) > _SPANS else ""
            say(f"{each.source}: passed over {', '.join(spans)}{more}")
    rows = []
    for camera in dict.fromkeys(each.camera for each in found):
        own = [each for each in found if each.camera == camera]
        lights: Counter[str] = Counter()
        for each in own:
            lights.update(each.lights)
        days = {each.start[:10] for each in own if each.start is not None}
        counts = [len(own), len(days), sum(each.frames for each in own), *(lights[name] for name in LIGHTS)]
        rows.append([camera, *map(str, counts), str(sum(each.near_duplicates for each in own))])
    print_table(("camera", "recordings", "days", "frames", *LIGHTS, "dropped"), rows)
    if timeless := [each.recording for each in found if each.start is None]:
        named = f"{some(timeless, 3)}: nothing says when {'it' if len(timeless) == 1 else 'they'} began"
        say(f"{named}; --start does, for one recording, or a date in the file's name")
