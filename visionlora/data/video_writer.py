"""Writing MP4 files, by PyAV, which the extra ``video`` brings."""

import os
import tempfile
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from visionlora.data.video import import_av
from visionlora.errors import InputError
from visionlora.files import write_atomic

_BT709 = 1
"""The number of that standard's colours in the tables of H.264 (ITU-T H.273)."""


class VideoWriter:
    """Writes an MP4 file, frame by frame: H.264, or MPEG-4 Part 2 where this FFmpeg can't write H.264.

    The file is whole or absent: it appears under its name when the writer is closed, and not at all if the body of the
    ``with`` fails.

    Args:
        path: ends in ``.mp4``.
        fps: frames per second, 0.01 to 1000.
        size: (width, height) of the images in pixels; odd sides are extended by one, as H.264's colours need.
        timed: frames come with times of their own, to the millisecond, and ``fps`` says about how many in a second.

    Raises:
        InputError: PyAV is missing, or the name, the rate or the size can't be.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int], timed: bool = False) -> None:
        if path.suffix.lower() != ".mp4":
            raise InputError(f"{path}: videos are written as MP4; let the name end in .mp4")
        if path.is_dir():
            raise InputError(f"{path}: a folder; name a file")
        if not 0.01 <= fps <= 1000 or min(size) < 1:
            raise InputError(f"{path}: a video of {size[0]} x {size[1]} pixels at {fps} frames per second can't be")
        self._av = import_av()
        self.path, self.size, self._count = path, size, 0
        self._tick, self._last = Fraction(1, 1000) if timed else None, -1
        self._rate = Fraction(fps).limit_denominator(1001)  # NTSC's are 30000 / 1001 and the like
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        self._temporary = Path(name)
        self._container = self._av.open(name, "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._add_stream()

    def write(self, image: np.ndarray, seconds: float = 0.0) -> None:
        """Append a frame: (H, W, 3) uint8 RGB, and when it is shown, if the writer is ``timed``.

        Raises:
            InputError: the image has another size than the video.
        """
        if image.shape != (self.size[1], self.size[0], 3) or image.dtype != np.uint8:
            width, height = self.size
            raise InputError(
                f"{self.path}: frame {self._count} is {image.dtype} of shape {image.shape}; "
                f"the video's are uint8 of shape {(height, width, 3)}"
            )
        padding = [(0, side % 2) for side in image.shape[:2]]
        frame = self._av.VideoFrame.from_ndarray(np.pad(image, [*padding, (0, 0)], mode="edge"), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="itu709")
        if self._tick is None:
            frame.pts, frame.time_base = self._count, 1 / self._rate
        else:
            frame.pts, frame.time_base = max(round(seconds / self._tick), self._last + 1), self._tick
            self._last = frame.pts
        self._container.mux(self._stream.encode(frame))
        self._count += 1

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            InputError: no frame was written.
        """
        try:
            if not self._count:
                raise InputError(f"{self.path}: not written, for there is no frame")
            self._container.mux(self._stream.encode())
            self._container.close()
            write_atomic(self.path, self._temporary.replace)
        finally:
            self.discard()

    def discard(self) -> None:
        """Give up: leave nothing behind."""
        self._container.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def _add_stream(self) -> Any:
        if "libx264" in self._av.codecs_available:
            stream = self._container.add_stream("libx264", self._rate, options={"preset": "veryfast", "crf": "20"})
        else:
            # A constant quantiser: the default bit rate smears anything larger than a thumbnail.
            stream = self._container.add_stream("mpeg4", self._rate, options={"qmin": "3", "qmax": "3"})
        stream.width, stream.height = (side + side % 2 for side in self.size)
        stream.pix_fmt = "yuv420p"
        if self._tick is not None:
            stream.time_base = stream.codec_context.time_base = self._tick
        # Players guess the colours of a file that doesn't name them, by its size, and differently.
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        return stream
