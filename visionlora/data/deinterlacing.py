"""Whole pictures of interlaced video, whose frames are two moments, each on every second line."""

from collections import deque
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

_FILTERS = ("bwdif", "yadif")
"""FFmpeg's, the better first. Both look at the frames around, and leave alone those that aren't interlaced."""


def deinterlaced(av: ModuleType, frames: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Pairs of anything and a decoded frame -> the same pairs in the same order, from the first interlaced frame on
    through FFmpeg's filter: one frame for each, of the first of its two moments' time.

    Where this FFmpeg has no such filter, frames stay as they are.
    """
    name = next((name for name in _FILTERS if name in av.filter.filters_available), None)
    filtering: _Filter | None = None
    for tag, frame in frames:
        if name is None or (filtering is None and not frame.interlaced_frame):
            yield tag, frame
            continue
        if filtering is None or filtering.shape != _shape(frame):
            if filtering is not None:
                yield from filtering.end()
            filtering = _Filter(av, name, frame)
        yield from filtering.push(tag, frame)
    if filtering is not None:
        yield from filtering.end()


class _Filter:
    def __init__(self, av: ModuleType, name: str, frame: Any) -> None:
        self.shape = _shape(frame)
        self._nothing = (av.error.BlockingIOError, av.error.EOFError)
        self._waiting: deque[tuple[Any, Any]] = deque()
        graph = av.filter.Graph()
        self._source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        filtering = graph.add(name, "mode=send_frame:parity=auto:deint=interlaced")
        self._sink = graph.add("buffersink")
        self._source.link_to(filtering)
        filtering.link_to(self._sink)
        graph.configure()
        self._graph = graph

    def push(self, tag: Any, frame: Any) -> Iterator[tuple[Any, Any]]:
        self._waiting.append((tag, frame.colorspace))
        self._source.push(frame)
        yield from self._pull()

    def end(self) -> Iterator[tuple[Any, Any]]:
        self._source.push(None)
        yield from self._pull()

    def _pull(self) -> Iterator[tuple[Any, Any]]:
        while self._waiting:
            try:
                frame = self._sink.pull()
            except self._nothing:
                return
            tag, frame.colorspace = self._waiting.popleft()
            yield tag, frame


def _shape(frame: Any) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
