"""What ``visionlora predict`` looks at, and where it draws."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from visionlora.cli.show import say
from visionlora.cli.videos import open_videos
from visionlora.data.folders import images_in, what_there_is
from visionlora.data.images import check_readable, is_image, read_image
from visionlora.data.live import LiveStream
from visionlora.data.live_address import file_name
from visionlora.data.video import DamagedVideo, VideoFrames
from visionlora.data.video_pieces import VideoPieces
from visionlora.data.video_writer import VideoWriter
from visionlora.errors import InputError, some
from visionlora.files import write_atomic

_CHUNK = 8
"""Images in memory at a time."""


@dataclass(frozen=True)
class Shot:
    """An image to look at: (H, W, 3) uint8 RGB.

    Attributes:
        number: of a frame; None for an image file.
        seconds: since the first frame.
        time: of a live frame's arrival, UTC.
    """

    image: np.ndarray
    number: int | None = None
    seconds: float = 0.0
    time: datetime | None = None

    def stamps(self) -> dict[str, object]:
        """What results say of a frame's time."""
        if self.number is None:
            return {}
        when = {} if self.time is None else {"time": stamp(self.time)}
        return {**when, "seconds": round(self.seconds, 3)}


def stamp(time: datetime) -> str:
    """As ISO 8601 has it, to the millisecond."""
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"


@dataclass(frozen=True)
class Source:
    """An image, a video or a live stream to look at.

    ``name`` is its path below the folder that was given, or its own name; ``path`` of a stream is its address, as it
    may be shown.
    """

    path: Path | str
    name: Path
    video: VideoFrames | None = None
    live: LiveStream | None = None

    @property
    def footage(self) -> VideoFrames | LiveStream | None:
        """The video or stream; None for an image."""
        return self.live or self.video

    @property
    def images(self) -> int | None:
        """How many there are; None if the video doesn't say, and for a stream."""
        if self.live is not None:
            return None
        if self.video is None:
            return 1
        return None if self.video.frame_count is None else -(-self.video.frame_count // self.video.every)

    @property
    def drawing(self) -> Path:
        """What its drawing is called."""
        return self.name.with_suffix(".png" if self.footage is None else ".mp4")

    def picture(self, frame: int | None) -> Path:
        """What a picture that belongs to it is called: of a video, one of each frame in a folder."""
        return self.name.with_suffix(".png") if frame is None else self.name.with_suffix("") / f"{frame:06}.png"

    def image_id(self, frame: int | None) -> str:
        """The path, for a frame with ``#`` and its number."""
        return str(self.path) if frame is None else f"{self.path}#{frame}"

    @property
    def file(self) -> Path | None:
        """Of an image; None for a video or stream."""
        return Path(self.path) if self.footage is None else None

    def chunks(self) -> Iterator[list[Shot]]:
        """A few images at a time, of a stream one; what is damaged in a video is told."""
        shots = self._shots()
        while chunk := list(islice(shots, _CHUNK if self.live is None else 1)):
            yield chunk

    def _shots(self) -> Iterator[Shot]:
        if self.live is not None:
            for live in self.live:
                yield Shot(live.image, live.number, live.seconds, live.time)
            return
        if self.video is None:
            yield Shot(read_image(Path(self.path)))
            return
        try:
            for frame in self.video:
                yield Shot(frame.image, frame.number, frame.seconds)
        except DamagedVideo as damage:
            say(damage)
        for remark in self.video.remarks:
            say(remark)


def stream_source(stream: LiveStream, address: str) -> Source:
    """A live stream to look at."""
    return Source(stream.name, Path(f"{file_name(address)}.mp4"), live=stream)


def find_sources(paths: list[Path], every: int, skip_unreadable: bool) -> tuple[list[Source], list[Path]]:
    """Files as they are given, and the images in folders; of videos each ``every``-th frame.

    Returns:
        what can be looked at; and the videos among several files that can't, which are named and passed over.

    Raises:
        InputError: something isn't there, an image can't be read, or nothing is left.
    """
    found: dict[Path, Path] = {}
    for given in paths:
        for path in find_images(given):
            found.setdefault(path, path.relative_to(given) if given.is_dir() else Path(path.name))
    # A GIF in a folder of images is one of them; one that is given by itself is played.
    played = {path for path in found if not is_image(path) or (path.suffix.lower() == ".gif" and path in paths)}
    images = set(readable([path for path in found if path not in played], skip_unreadable))
    videos, refused = open_videos([path for path in found if path in played], every, alone=len(found) == 1)
    sources = [Source(path, name, videos.get(path)) for path, name in found.items() if path in videos or path in images]
    if not sources:
        raise InputError("no image is left: none of them can be read")
    return sources, refused


def count_images(sources: Sequence[Source]) -> int | None:
    """How many images there are in all; None if a video doesn't say."""
    lengths = [source.images for source in sources]
    known = [length for length in lengths if length is not None]
    return sum(known) if len(known) == len(lengths) else None


def refuse_twins(sources: Sequence[Source], folder: Path | None, option: str, what: str) -> None:
    """Raises InputError if two sources would have one file in the folder asked for with an option."""
    if folder is None:
        return
    names = Counter(source.drawing for source in sources)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(
            f"{option}: {folder / twice[0]} would be the {what} of several images; predict them one after the other"
        )


def drawing(
    source: Source, folder: Path | None, files: ExitStack, pieces: float | None
) -> Callable[[np.ndarray, Shot], None] | None:
    """What to call with each drawn image, (H, W, 3) uint8, and what it was drawn into; None without a folder.

    A video is whole when files close. In ``pieces`` of so many seconds it gets a folder, with files that are called
    after the second of their first frame, and of a stream after its time.
    """
    if folder is None:
        return None
    target, footage = folder / source.drawing, source.footage
    if footage is None:
        return lambda drawn, _: write_atomic(target, lambda path: Image.fromarray(drawn).save(path, format="PNG"))
    fps = footage.fps / footage.every
    if pieces is None:
        writer = files.enter_context(VideoWriter(target, fps, (footage.width, footage.height)))
        return lambda drawn, _: writer.write(drawn)
    several = files.enter_context(VideoPieces(fps, pieces))

    def write(drawn: np.ndarray, shot: Shot) -> None:
        begin = f"{shot.seconds:010.3f}s" if shot.time is None else f"{shot.time:%Y%m%dT%H%M%S.%fZ}"
        several.write(drawn, shot.seconds, target.with_suffix("") / f"{begin}.mp4")

    return write


def readable(paths: list[Path], skip_unreadable: bool) -> list[Path]:
    """The paths without those that can't be read; these are named. InputError unless they may be skipped."""
    bad = check_readable(paths, skip_unreadable)
    if bad:
        say(f"left out because they can't be read: {some(sorted(bad))}")
    return [path for path in paths if path not in bad]


def find_images(path: Path) -> list[Path]:
    """A file as it is given, or the images in a folder. InputError for what isn't there."""
    if path.is_dir():
        if not (found := images_in(path)):
            raise InputError(f"{path}: holds no image")
        return found
    if not path.exists():
        raise InputError(f"{path}: no such image or folder{what_there_is(path)}")
    return [path]
