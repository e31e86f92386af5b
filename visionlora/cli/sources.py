"""What ``visionlora predict`` looks at, and where it draws."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from visionlora.cli.show import say
from visionlora.cli.videos import open_videos
from visionlora.data.folders import images_in, what_there_is
from visionlora.data.images import check_readable, is_image, read_image
from visionlora.data.video import DamagedVideo, VideoFrames
from visionlora.data.video_writer import VideoWriter
from visionlora.errors import InputError, some
from visionlora.files import write_atomic

_CHUNK = 8
"""Images in memory at a time."""

Shot = tuple[int | None, np.ndarray]
"""Number of a frame, None for an image file, and its pixels."""


@dataclass(frozen=True)
class Source:
    """An image or a video to look at. ``name`` is its path below the folder that was given, or its own name."""

    path: Path
    name: Path
    video: VideoFrames | None = None

    @property
    def images(self) -> int | None:
        """How many there are; None if the video doesn't say."""
        if self.video is None:
            return 1
        return None if self.video.frame_count is None else -(-self.video.frame_count // self.video.every)

    @property
    def drawing(self) -> Path:
        """What its drawing is called."""
        return self.name.with_suffix(".png" if self.video is None else ".mp4")

    def picture(self, frame: int | None) -> Path:
        """What a picture that belongs to it is called: of a video, one of each frame in a folder."""
        return self.name.with_suffix(".png") if frame is None else self.name.with_suffix("") / f"{frame:06}.png"

    def image_id(self, frame: int | None) -> str:
        """The path, for a frame with ``#`` and its number."""
        return str(self.path) if frame is None else f"{self.path}#{frame}"

    def chunks(self) -> Iterator[list[Shot]]:
        """A few images at a time; what is damaged in a video is told."""
        shots = self._shots()
        while chunk := list(islice(shots, _CHUNK)):
            yield chunk

    def _shots(self) -> Iterator[Shot]:
        if self.video is None:
            yield None, read_image(self.path)
            return
        try:
            for frame in self.video:
                yield frame.number, frame.image
        except DamagedVideo as damage:
            say(damage)
        for remark in self.video.remarks:
            say(remark)


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


def drawing(source: Source, folder: Path | None, files: ExitStack) -> Callable[[np.ndarray], None] | None:
    """What to call with each drawn image, (H, W, 3) uint8; None without a folder. A video is whole when files close."""
    if folder is None:
        return None
    target, video = folder / source.drawing, source.video
    if video is not None:
        writer = files.enter_context(VideoWriter(target, video.fps / video.every, (video.width, video.height)))
        return writer.write
    return lambda drawn: write_atomic(target, lambda path: Image.fromarray(drawn).save(path, format="PNG"))


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
