"""Frames of video files, by PyAV, which the extra ``video`` brings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from visionlora.data.deinterlacing import deinterlaced
from visionlora.data.video_decoding import BACK, Oddities, decode
from visionlora.errors import InputError

_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,h264,hevc,m4v,mjpeg,ogg,gif,mxf,dv,ivf,rm,wtv"
"""FFmpeg's names of what is read. Others would open images, text and playlists, which name other files to open."""


class Frame(NamedTuple):
    """A decoded frame.

    Attributes:
        number: its place among the decoded frames, from 0.
        seconds: since the first frame.
        image: (H, W, 3) uint8 RGB, upright.
    """

    number: int
    seconds: float
    image: np.ndarray


class DamagedVideo(InputError):
    """A video of which a part could not be read. It comes after the last frame that could."""


class VideoFrames:
    """The frames of a video file, decoded while they are iterated over; each iteration starts anew.

    A fault in the file doesn't end an iteration: damaged frames are left out, and after the last good one
    ``DamagedVideo`` says how many were read and where the first fault is. Frames behind a fault keep their seconds,
    but not always their number. What is odd and no fault is in ``remarks`` when an iteration has come to its end.
    Interlaced frames are deinterlaced. Of several videos in a file the largest is read.

    Args:
        path: any format and codec that FFmpeg reads.
        every: yield only each ``every``-th frame, the first included.

    Attributes:
        width, height: of the upright frames, in pixels.
        fps: frames per second, on average.
        frame_count: frames in the file before thinning; None if the file doesn't say (Matroska, transport streams).
        remarks: of the last whole iteration, each a line: the file begins within a group of pictures, whose frames
            can't be decoded; its clock jumps; it is interlaced.

    Raises:
        InputError: PyAV is missing, there is no such file, it is no video, or no frame of it can be decoded.
        DamagedVideo: at the end of an iteration, see above.
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        if every < 1:
            raise InputError(f"every {every}-th frame can't be taken; the least is 1")
        if not path.is_file():
            raise InputError(f"{path}: {'a folder, not a video' if path.is_dir() else 'no such file'}")
        self.path, self.every = path, every
        self.remarks: list[str] = []
        with self._open() as container:
            stream = video_stream(container, path)
            rate = stream.average_rate or stream.guessed_rate
            if not rate:
                raise InputError(f"{path}: doesn't say how many frames it has per second; write it anew as MP4")
            self.fps, self.frame_count = float(rate), stream.frames or None
            for _, frame in decode(import_av(), container, stream, self.fps, Oddities()):
                if frame is not None:
                    self.height, self.width = upright(frame, path, frame.rotation).shape[:2]
                    return
        raise InputError(f"{path}: no frame can be decoded")

    def __iter__(self) -> Iterator[Frame]:
        seen, odd = _Seen(), Oddities()
        with self._open() as container:
            stream = video_stream(container, self.path)
            good = deinterlaced(import_av(), self._timed(container, stream, seen, odd))
            for (number, seconds, rotation, wanted), frame in good:
                if wanted:
                    yield Frame(number, seconds, upright(frame, self.path, rotation))
            announced = _seconds_announced(container, stream)
            # FFmpeg skips a damaged part of an AVI in silence. An MP4 may count frames that its edit list leaves out.
            counted = self.frame_count if container.format.name == "avi" and not odd.lost else None
        self.remarks = [f"{self.path}: {remark}" for remark in odd.remarks()]
        # Some files count what was lost at the beginning as well, and some announce the clock's last time.
        end = max(seen.end, (seen.start or 0) + seen.end) if odd.lost else seen.end
        if seen.fault is None and announced is not None and end < announced - 1 and not odd.jumps:
            seen.fault = (seen.end, f"it ends there, {announced:.1f} s were announced")
        if seen.fault is None and counted is not None and seen.decoded < counted:
            seen.fault = (seen.end, f"{counted - seen.decoded} frames before that are missing")
        if seen.fault is not None:
            after, fault = seen.fault
            read = (
                f"{seen.decoded - seen.damaged}{f' of {self.frame_count}' if self.frame_count else ''} frames were read"
            )
            raise DamagedVideo(f"{self.path}: damaged {after:.1f} s in ({fault}); {read}")

    def _timed(
        self, container: Any, stream: Any, seen: "_Seen", odd: Oddities
    ) -> Iterator[tuple[tuple[int, float, int, bool], Any]]:
        """Decoded frames, each with its number, seconds, rotation, and whether it is to be yielded."""
        for fault, frame in decode(import_av(), container, stream, self.fps, odd):
            if frame is not None:
                seconds = seen.show(_time(frame, container), frame.duration * float(frame.time_base), 1 / self.fps)
                seen.damaged += bool(fault)
                wanted = not fault and seen.decoded % self.every == 0
                yield (seen.decoded, seconds, frame.rotation, wanted), frame
                seen.decoded += 1
            if fault and seen.fault is None:
                seen.fault = (seen.seconds, fault)

    def _open(self) -> Any:
        av = import_av()
        try:
            options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
            return av.open(f"file:{self.path.absolute()}", options=options)
        except av.error.FFmpegError as error:
            raise InputError(
                f"{self.path}: no video of a known format, or damaged at its start ({error.strerror})"
            ) from error


@dataclass
class _Seen:
    """How far an iteration is: frames, of which some are damaged; seconds of the last one, and of its end."""

    decoded: int = 0
    damaged: int = 0
    seconds: float = 0.0
    end: float = 0.0
    start: float | None = None
    fault: tuple[float, str] | None = None

    def show(self, time: float | None, duration: float, step: float) -> float:
        """The seconds of the next frame, which the file shows at ``time`` of its clock."""
        if self.start is None:
            self.start = time
        elif time is not None and time - self.start < self.seconds - BACK:  # the clock went back: it goes on from here
            self.start = time - self.seconds - step
        if time is not None and self.start is not None and (time - self.start > self.seconds or not self.decoded):
            self.seconds = time - self.start
        elif self.decoded:
            self.seconds += step
        self.end = self.seconds + (duration or step)
        return self.seconds


def import_av() -> ModuleType:
    """PyAV, or an ``InputError`` that says how to install it."""
    try:
        import av
    except ImportError as error:
        raise InputError("reading and writing video needs PyAV: pip install visionlora[video]") from error
    return av


def video_stream(container: Any, path: Path | str) -> Any:
    """The largest video of an opened container. InputError, with the name ``path``, if there is none to decode."""
    cover = import_av().stream.Disposition.attached_pic
    streams = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & cover
    ]
    if not streams:
        raise InputError(f"{path}: holds no video that can be decoded")
    # A recorder's file may hold a preview beside the recording, and first.
    stream = max(streams, key=lambda one: one.codec_context.width * one.codec_context.height)
    stream.thread_type = "AUTO"
    return stream


def _time(frame: Any, container: Any) -> float | None:
    """When to show a frame, in seconds of the container's clock; None if the file doesn't say."""
    # AVI knows no times of showing, only the order of decoding.
    ticks = frame.dts if container.format.name == "avi" else frame.pts
    return None if ticks is None else ticks * float(frame.time_base)


def upright(frame: Any, path: Path | str, rotation: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as the file says."""
    if rotation % 90:
        raise InputError(f"{path}: its frames are turned by {rotation} degrees; only quarter turns are read")
    image: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, rotation // 90))


def _seconds_announced(container: Any, stream: Any) -> float | None:
    """How long the file says that the video is; None if it doesn't."""
    if stream.duration:
        return stream.duration * float(stream.time_base)
    if container.duration and len(container.streams) == 1:  # else it may be the sound that is longer
        return container.duration / 1e6
    return None
