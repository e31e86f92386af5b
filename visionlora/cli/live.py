"""A live stream as what ``visionlora predict`` looks at, and how quick it is at footage."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from visionlora.cli.footage import PATIENCE, FootageOptions
from visionlora.cli.show import say
from visionlora.cli.sources import Source, stream_source
from visionlora.data.live import LiveStream
from visionlora.errors import InputError
from visionlora.stopping import Stopped, stop_requests

_MINUTE = 60.0
"""Seconds between two lines about a stream."""


@contextmanager
def streaming(address: str, footage: FootageOptions, every: int) -> Iterator[Source]:
    """A stream that is connected to, and let go at the end; a signal ends it, and what was found is kept."""
    patience = PATIENCE if footage.patience is None else footage.patience
    with (
        stop_requests() as asked,
        LiveStream(address, every, patience=patience, limit=footage.limit, stop=asked, tell=say) as stream,
    ):
        if not stream.width:  # asked to end while it was being connected to
            raise Stopped(asked())
        yield stream_source(stream, address)


def refuse_beside_a_stream(paths: Sequence[str], out: Path | None, labels: Path | None) -> None:
    """Raises InputError for what can't be, where one of the paths is a stream's address."""
    if len(paths) > 1:
        raise InputError("a live stream never ends; give it alone, and start a command for each")
    if labels is not None:
        raise InputError("--labels is for images and videos, and a live stream never ends; give a recording of it")
    if out is not None and out.suffix != ".jsonl":
        raise InputError(f"--out {out}: of a live stream lines are written as they come; end it in .jsonl")


class Speed:
    """Says how quick it is: of a stream once a minute, and of any footage at its end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start = self._before = time.monotonic()
        self._images = 0

    def __call__(self, images: int) -> None:
        """Take in how many frames are done."""
        now = time.monotonic()
        if self._source.live is None or now - self._before < _MINUTE:
            return
        rate = (images - self._images) / (now - self._before)
        self._before, self._images = now, images
        say(f"{images} frames, {rate:.1f} frames/s{self._stream()}")

    def last(self, images: int) -> list[str]:
        """What is to be said at the end."""
        if self._source.footage is None:
            return []
        seconds = max(time.monotonic() - self._start, 1e-9)
        lost = self._source.live.lost if self._source.live else ""
        ended = [f"{self._source.path}: given up: {lost}"] if lost else []
        speed = f"{images} frames in {seconds:.0f} s, {images / seconds:.1f} frames/s{self._stream()}"
        return [*ended, f"{self._source.path}: {speed}"]

    def _stream(self) -> str:
        if self._source.live is None:
            return ""
        counts = self._source.live.counts
        damaged = f", {counts.damaged} damaged" if counts.damaged else ""
        again = f", connected again {counts.reconnects} times" if counts.reconnects else ""
        return f", {counts.dropped} dropped{damaged}{again}"
