"""Frames of live streams and cameras, by PyAV: what is lost is connected to again, and what comes too fast is dropped.

A thread reads and decodes as fast as frames arrive; whoever iterates gets the newest few.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from visionlora.data.deinterlacing import deinterlaced
from visionlora.data.live_address import is_live, open_live, shown_address
from visionlora.data.video import import_av, upright, video_stream
from visionlora.data.video_decoding import Oddities, decode
from visionlora.errors import InputError

BACK_OFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before each attempt to connect again; the last is repeated."""
_WAITING = 8
"""Decoded frames that wait for whoever iterates; an older one makes room for a newer."""
_POLL = 0.1
"""Seconds between two looks whether to end."""
_FAREWELL = 0.5
"""Seconds that the end waits for the reading thread, which may itself wait for an answer."""
_USUAL = 25.0
"""Frames per second of a stream that does not say."""


class LiveFrame(NamedTuple):
    """A decoded frame.

    Attributes:
        number: its place among the decoded frames since the beginning, from 0; dropped ones count.
        seconds: from the first frame's arrival to its own.
        image: (H, W, 3) uint8 RGB, upright.
        time: of its arrival, UTC.
    """

    number: int
    seconds: float
    image: np.ndarray
    time: datetime


@dataclass
class Counts:
    """What came of a stream so far.

    Attributes:
        frames: decoded.
        dropped: of these, because newer ones came before they were taken.
        damaged: left out because they were damaged.
        reconnects: how often a lost connection came back.
        away: seconds that passed between.
    """

    frames: int = 0
    dropped: int = 0
    damaged: int = 0
    reconnects: int = 0
    away: float = 0.0


class LiveStream:
    """The frames of a live stream, as they come; to be used in a ``with``, which connects, and iterated over once.

    An iteration ends when ``stop`` or ``limit`` says so, or when the stream was away for ``patience`` seconds. A lost
    connection is tried again after ``BACK_OFF`` seconds. At most ``_WAITING`` decoded frames are in memory.

    Args:
        address: ``rtsp://``, ``rtsps://``, ``http://`` or ``https://``, or ``/dev/video0`` on Linux. Playlists
            (HLS) are not followed.
        every: yield only each ``every``-th frame.
        timeout: seconds without an answer, or without a frame, after which a connection counts as lost.
        patience: seconds for which a lost stream is tried again.
        limit: seconds from the first frame after which to end; None for never.
        stop: asked several times a second whether to end.
        tell: called, while iterating, with a line when the connection is lost and when it is back.

    Attributes:
        name: the address without user, password and query: what may be shown and stored.
        width, height: of the first frame, in pixels; a camera may change them later.
        fps: frames per second that the stream announces, or 25.
        counts: what came so far.
        lost: why the stream is given up; empty while it is not.

    Raises:
        InputError: on entering: PyAV is missing, the address is none, nobody answers, or there is no video. No message
            holds a password.
    """

    def __init__(
        self,
        address: str,
        every: int = 1,
        timeout: float = 10.0,
        patience: float = 600.0,
        limit: float | None = None,
        stop: Callable[[], object] = lambda: False,
        tell: Callable[[str], object] = lambda _line: None,
    ) -> None:
        if not is_live(address):
            raise InputError(f"{address}: no address of a stream; give rtsp://, http:// or /dev/video0")
        if every < 1:
            raise InputError(f"every {every}-th frame can't be taken; the least is 1")
        self.name, self.every = shown_address(address), every
        self.width = self.height = 0
        self.fps = _USUAL
        self.counts, self.lost = Counts(), ""
        self._address, self._timeout, self._patience, self._limit = address, timeout, patience, limit
        self._stop, self._tell = stop, tell
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, float, datetime, Any]] = deque()
        self._news: deque[str] = deque(maxlen=100)
        self._closing, self._over = threading.Event(), False
        self._first: float | None = None  # the clock when the first frame came
        self._failed = ""  # the name of an error that nobody expected
        self._fault = ""  # the last thing that was wrong with a connection
        self._thread = threading.Thread(target=self._read, name=f"reading {self.name}", daemon=True)

    def __enter__(self) -> "LiveStream":
        import_av()
        self._thread.start()
        # Opening and the first packet may take the timeout each; a name that no server resolves may take longer.
        patience = time.monotonic() + 3 * self._timeout
        with self._changed:
            while not self._waiting and not self._over and not self._stop():
                self._changed.wait(_POLL)
                if time.monotonic() > patience:
                    self.lost = f"no frame within {3 * self._timeout:g} s"
                    break
            first = self._waiting[0] if self._waiting else None
        if first is None and not self._stop():
            self.close()
            self._raise_failure()
            raise InputError(f"{self.name}: {self.lost}" if self.lost else f"{self.name}: ends before its first frame")
        if first is not None:
            self.height, self.width = upright(first[3], self.name, first[3].rotation).shape[:2]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the stream; a reader that waits for an answer ends when its timeout does."""
        self._closing.set()
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_FAREWELL)

    def __iter__(self) -> Iterator[LiveFrame]:
        while True:
            with self._changed:
                while not self._waiting and not self._over and not self._news and not self._ends():
                    self._changed.wait(_POLL)
                news = [self._news.popleft() for _ in range(len(self._news))]
                taken = self._waiting.popleft() if self._waiting else None
                over = self._over
            for line in news:
                self._tell(line)
            if self._ends() or (taken is None and over):
                self._raise_failure()
                return
            if taken is not None:
                number, seconds, arrived, frame = taken
                if self._limit is not None and seconds > self._limit:
                    return
                yield LiveFrame(number, seconds, upright(frame, self.name, frame.rotation), arrived)

    def _raise_failure(self) -> None:
        if self._failed:
            raise RuntimeError(f"{self.name}: reading it failed with {self._failed}")

    def _ends(self) -> bool:
        past = self._limit is not None and self._first is not None and time.monotonic() - self._first > self._limit
        return bool(self._stop()) or past or self._closing.is_set()

    def _read(self) -> None:
        """The thread: connect, decode until the connection is lost, wait, and so on."""
        try:
            self._keep_reading()
        except Exception as error:  # else whoever iterates would wait for ever; its text may hold the address
            self._failed = type(error).__name__
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _keep_reading(self) -> None:
        lost_at, attempt = time.monotonic(), 0
        while not self._closing.is_set():
            before = self.counts.frames
            why = self._connection(lost_at if self._first is not None else None)
            if self._closing.is_set():
                break
            if self.counts.frames > before:
                lost_at, attempt = time.monotonic(), 0
                self._say(f"{_clock()} connection lost: {why}")
            if self._first is None or time.monotonic() - lost_at > self._patience:
                self.lost = why
                break
            self._closing.wait(BACK_OFF[min(attempt, len(BACK_OFF) - 1)])
            attempt += 1

    def _connection(self, lost_at: float | None) -> str:
        """Decode what one connection brings; why it ended. ``lost_at`` is when the one before ended."""
        av = import_av()
        container = None
        try:
            container = open_live(av, self._address, self._timeout)
            stream = video_stream(container, self.name)
            stream.thread_type = "SLICE"  # threads by frame would hold some back
            self.fps = float(stream.average_rate or stream.guessed_rate or 0) or _USUAL
            for _, frame in deinterlaced(av, self._good(decode(av, container, stream, self.fps, Oddities()))):
                if self._closing.is_set():
                    return ""
                if lost_at is not None:
                    self._back(time.monotonic() - lost_at)
                    lost_at = None
                self._put(frame)
        except InputError as error:
            return str(error).removeprefix(f"{self.name}: ")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            return getattr(error, "strerror", None) or type(error).__name__
        finally:
            if container is not None:
                container.close()
        return self._fault or "it ended"

    def _good(self, decoded: Iterator[tuple[str, Any]]) -> Iterator[tuple[None, Any]]:
        """The frames that are not damaged."""
        self._fault = ""
        for fault, frame in decoded:
            if fault:
                self._fault = fault
                self.counts.damaged += frame is not None
            elif frame is not None:
                self._fault = ""
                yield None, frame

    def _put(self, frame: Any) -> None:
        now = time.monotonic()
        with self._changed:
            if self._first is None:
                self._first = now
            number = self.counts.frames
            self.counts.frames += 1
            if number % self.every:
                return
            if len(self._waiting) == _WAITING:
                self._waiting.popleft()
                self.counts.dropped += 1
            self._waiting.append((number, now - self._first, datetime.now(UTC), frame))
            self._changed.notify_all()

    def _back(self, away: float) -> None:
        self.counts.reconnects += 1
        self.counts.away += away
        self._say(f"{_clock()} connected again after {away:.1f} s")

    def _say(self, line: str) -> None:
        with self._changed:
            self._news.append(f"{self.name}: {line}")
            self._changed.notify_all()


def _clock() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
