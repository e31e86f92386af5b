"""Which recordings there are in files and folders, of which cameras, and when each began."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from visionlora.errors import InputError, some

_ENDINGS = (
    "mp4 m4v mov mkv webm avi ts m2ts mts mpg mpeg flv wmv asf h264 264 h265 265 hevc mjpeg mjpg ogv gif mxf dv ivf rm "
    "wtv 3gp dav"
)
SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""Of what is taken for a recording in a folder; a file that is given itself may be called anything."""

_DATE = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<gap>[-_.]?)(?P<month>0[1-9]|1[0-2])(?P=gap)(?P<day>0[1-9]|[12]\d|3[01])"
    r"(?:[-_.T\s]*(?P<hour>[01]\d|2[0-3])(?P<apart>[-_.:h]?)(?P<minute>[0-5]\d)(?:(?P=apart)(?P<second>[0-5]\d))?)?"
    r"(?!\d)"
)
_UNSAFE = re.compile(r"[^\w.@+-]+")


@dataclass(frozen=True)
class Recording:
    """A video file of a camera.

    Attributes:
        path: the file.
        camera: by name.
        name: of the recording, one of its camera's.
        start: by the date in its file's name, or in the folders' up to the one that was given; None without.
    """

    path: Path
    camera: str
    name: str
    start: datetime | None


def find_recordings(given: Sequence[Path], camera: str = "") -> list[Recording]:
    """Files, and all videos in folders, in the order of cameras and names.

    A camera is called ``camera``; or as the folder within the given one that is the first with more to its name than a
    date or a number; or as the file without date, time and number; or as the folder that holds it.

    Raises:
        InputError: no such file or folder, a folder without videos, or two recordings of a camera with one name.
    """
    found: list[Recording] = []
    for path in given:
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
            files = [file for file in files if not any(p.startswith(".") for p in file.relative_to(path).parts)]
            if not files:
                raise InputError(f"{path}: no video in it; its files should end in {some(sorted(SUFFIXES), 40)}")
            found += [_recording(file, file.relative_to(path).parts, camera) for file in files]
        elif path.exists():
            found.append(_recording(path, (path.name,), camera))
        else:
            raise InputError(f"{path}: no such file or folder")
    found = list(dict.fromkeys(found))
    _refuse_twins(found)
    return sorted(found, key=lambda each: (each.camera, each.name))


def _recording(path: Path, parts: tuple[str, ...], camera: str) -> Recording:
    """``parts`` are the folders below the given one, and the file."""
    *folders, file = parts
    stem = Path(file).stem
    named = next((bare for folder in folders if (bare := _bare(folder))), "")
    folder = path.absolute().parent.name
    camera = _safe(camera or named or _bare(stem) or folder or "camera")
    name = _safe("_".join([each for each in folders if _safe(each) != camera] + [stem]))
    start = next((found for text in (stem, name) if (found := start_in(text))), None)
    if name[: len(camera) + 1] in (f"{camera}_", f"{camera}-", f"{camera}."):  # whose it is, is said already
        name = name[len(camera) + 1 :] or name
    return Recording(path, camera, name, start)


def start_in(name: str) -> datetime | None:
    """The date, and the time if there is one, in a name such as ``gate_20240531-120000`` or ``2024-05-31``.

    Without a time it is midnight.
    """
    for found in _DATE.finditer(name):
        parts = [int(found[part] or 0) for part in ("year", "month", "day", "hour", "minute", "second")]
        try:
            return datetime(*parts)  # type: ignore[arg-type]
        except ValueError:  # such as the 31st of June
            continue
    return None


def _bare(name: str) -> str:
    """A name without dates, times and the numbers at its end; empty if nothing with a letter is left."""
    bare = re.sub(r"[-_.\s]+\d+(?=$|[-_.\s])", "", _DATE.sub("", name)).strip("-_. ")
    return bare if re.search(r"[^\W\d_]", bare) else ""


def _safe(name: str) -> str:
    """As the name of a file."""
    return _UNSAFE.sub("_", name).strip(".") or "_"


def _refuse_twins(recordings: Iterable[Recording]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for each in recordings:
        other = seen.setdefault((each.camera, each.name), each.path)
        if other != each.path:
            raise InputError(
                f"{other} and {each.path} would both be recording {each.name} of camera {each.camera}; give them one "
                "after the other with --camera, or rename one"
            )
