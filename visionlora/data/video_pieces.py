"""A video that is written as several MP4 files, each whole as soon as it is full."""

from pathlib import Path
from types import TracebackType

import numpy as np

from visionlora.data.video_writer import VideoWriter


class VideoPieces:
    """Writes frames with times of their own into one MP4 file after the other; to be used in a ``with``.

    A piece is full when it is ``length`` seconds long, or where frames change their size. What was written when the
    block ends is kept, whole; where it fails, the last piece is not.

    Args:
        fps: about so many frames come in a second.
        length: seconds of a piece.
    """

    def __init__(self, fps: float, length: float) -> None:
        self._fps, self._length = fps, length
        self._writer: VideoWriter | None = None
        self._start = 0.0

    def write(self, image: np.ndarray, seconds: float, path: Path) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            seconds: its time, which grows from frame to frame.
            path: of the piece that begins with it, if one does.
        """
        size = (image.shape[1], image.shape[0])
        if self._writer is not None and (seconds - self._start >= self._length or self._writer.size != size):
            self._writer.close()
            self._writer = None
        if self._writer is None:
            self._writer = VideoWriter(path, self._fps, size, timed=True)
            self._start = seconds
        self._writer.write(image, seconds - self._start)

    def __enter__(self) -> "VideoPieces":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        if error is None:
            self._writer.close()
        else:
            self._writer.discard()
