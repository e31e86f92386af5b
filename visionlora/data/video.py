"""Frames of video files, by PyAV, which the extra ``video`` brings."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

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
    `DamagedVideo` says how many were read and where the first fault is. Frames behind a fault keep their seconds,
    but not always their number.

    Args:
        path: any format and codec that FFmpeg reads.
        every: yield only each ``every``-th frame, the first included.

    Attributes:
        width, height: of the upright frames, in pixels.
        fps: frames per second, on average.
        frame_count: frames in the file before thinning; None if the file doesn't say (Matroska, transport streams).

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
        with self._open() as container:
            stream = _video_stream(container, path)
            rate = stream.average_rate or stream.guessed_rate
            if not rate:
                raise InputError(f"{path}: doesn't say how many frames it has per second; write it anew as MP4")
            self.fps, self.frame_count = float(rate), stream.frames or None
            for _, frame in _decode(container, stream):
                if frame is not None:
                    self.height, self.width = _upright(frame, path).shape[:2]
                    return
        raise InputError(f"{path}: no frame can be decoded")

    def __iter__(self) -> Iterator[Frame]:
        decoded, damaged, seconds, end = 0, 0, 0.0, 0.0
        first_fault: tuple[float, str] | None = None
        with self._open() as container:
            stream = _video_stream(container, self.path)
            start: float | None = None
            for fault, frame in _decode(container, stream):
                if frame is not None:
                    time = _time(frame, container)
                    start = time if start is None else start
                    if time is not None and start is not None and (time - start > seconds or not decoded):
                        seconds = time - start
                    elif decoded:
                        seconds += 1 / self.fps
                    end = seconds + (frame.duration * float(frame.time_base) if frame.duration else 1 / self.fps)
                    if not fault and decoded % self.every == 0:
                        yield Frame(decoded, seconds, _upright(frame, self.path))
                    decoded += 1
                    damaged += bool(fault)
                if fault and first_fault is None:
                    first_fault = (seconds, fault)
            announced = _seconds_announced(container, stream)
            # FFmpeg skips a damaged part of an AVI in silence. An MP4 may count frames that its edit list leaves out.
            counted = self.frame_count if container.format.name == "avi" else None
        if first_fault is None and announced is not None and end < announced - 1:
            first_fault = (end, f"it ends there, {announced:.1f} s were announced")
        if first_fault is None and counted is not None and decoded < counted:
            first_fault = (end, f"{counted - decoded} frames before that are missing")
        if first_fault is not None:
            after, fault = first_fault
            read = f"{decoded - damaged}{f' of {self.frame_count}' if self.frame_count else ''} frames were read"
            raise DamagedVideo(f"{self.path}: damaged {after:.1f} s in ({fault}); {read}")

    def _open(self) -> Any:
        av = import_av()
        try:
            options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
            return av.open(f"file:{self.path.absolute()}", options=options)
        except av.error.FFmpegError as error:
            raise InputError(
                f"{self.path}: no video of a known format, or damaged at its start ({error.strerror})"
            ) from error


def import_av() -> ModuleType:
    """PyAV, or an `InputError` that says how to install it."""
    try:
        import av
    except ImportError as error:
        raise InputError("reading and writing video needs PyAV: pip install visionlora[video]") from error
    return av


def _video_stream(container: Any, path: Path) -> Any:
    cover = import_av().stream.Disposition.attached_pic
    for stream in container.streams.video:
        if stream.codec_context is not None and not stream.disposition & cover:
            stream.thread_type = "AUTO"
            return stream
    raise InputError(f"{path}: holds no video that can be decoded")


def _decode(container: Any, stream: Any) -> Iterator[tuple[str, Any]]:
    """Pairs of a fault, empty if there is none, and a frame, or None where a fault left no frame."""
    error = import_av().error.FFmpegError
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except error as fault:
            yield fault.strerror or "unreadable", None
            return
        if packet.is_corrupt:
            yield "a part is missing", None
        try:
            frames = packet.decode()
        except error as fault:
            yield fault.strerror or "undecodable", None
            continue
        for frame in frames:
            yield ("a frame is damaged" if frame.is_corrupt else ""), frame


def _time(frame: Any, container: Any) -> float | None:
    """When to show a frame, in seconds of the container's clock; None if the file doesn't say."""
    # AVI knows no times of showing, only the order of decoding.
    ticks = frame.dts if container.format.name == "avi" else frame.pts
    return None if ticks is None else ticks * float(frame.time_base)


def _upright(frame: Any, path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as the file says."""
    if frame.rotation % 90:
        raise InputError(f"{path}: its frames are turned by {frame.rotation} degrees; only quarter turns are read")
    image: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, frame.rotation // 90))


def _seconds_announced(container: Any, stream: Any) -> float | None:
    """How long the file says that the video is; None if it doesn't."""
    if stream.duration:
        return stream.duration * float(stream.time_base)
    if container.duration and len(container.streams) == 1:  # else it may be the sound that is longer
        return container.duration / 1e6
    return None
