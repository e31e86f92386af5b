"""The decoded frames of a video stream, with what is damaged, and what is odd without being damage."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

LEAP, FRAMES = 10.0, 10
"""Seconds, and frames, that a clock may go on from one packet to the next: less is a pause in a recording."""
BACK = 0.5
"""Seconds that it may go back: some files' clocks tremble."""

_JOINT = 16
"""Packets between what seems to be missing and the clock's jump that explains it."""
_HOPELESS = 1000
"""Packets without a key frame, after which the decoder gets what there is."""


@dataclass
class Oddities:
    """What is no damage.

    Attributes:
        lost: packets before the first key frame, which begins a group of pictures.
        jumps: how many times the clock jumped.
        jump: by how many seconds at first; and ``jump_after`` so many from the beginning.
        interlaced: frames hold two moments each.
    """

    lost: int = 0
    jumps: int = 0
    jump: float = 0.0
    jump_after: float = 0.0
    interlaced: bool = False

    def remarks(self) -> list[str]:
        """One line for each."""
        found = []
        if self.lost:
            frames = "the frame" if self.lost == 1 else f"the {self.lost} frames"
            found.append(f"begins within a group of pictures; {frames} before the first key frame can't be decoded")
        if self.jumps:
            more = f", and {self.jumps - 1} more times" if self.jumps > 1 else ""
            found.append(f"its clock jumps by {self.jump:+.1f} s, {self.jump_after:.1f} s in{more}")
        if self.interlaced:
            found.append(
                "is interlaced; each frame shows the first of its two moments, the lines between are filled in"
            )
        return found


def decode(av: ModuleType, container: Any, stream: Any, fps: float, odd: Oddities) -> Iterator[tuple[str, Any]]:
    """Pairs of a fault, empty if there is none, and a frame, or None where a fault left no frame.

    Args:
        av: PyAV.
        container, stream: opened by it.
        fps: of the stream.
        odd: filled on the way.
    """
    error = av.error.FFmpegError
    packets, clock = container.demux(stream), _Clock(fps, odd)
    # Where two transport streams were put together, a part seems to be missing shortly before the clock's jump.
    patience = _JOINT if container.format.name == "mpegts" else 0
    started, missing = False, 0
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except error as fault:
            yield fault.strerror or "unreadable", None
            break
        jump = clock.look(packet, missing > 0 or packet.is_corrupt)
        ends = packet.dts is None and packet.pts is None and not packet.size
        if not started and not ends and not packet.is_keyframe and odd.lost < _HOPELESS:
            odd.lost += 1
            continue
        started = True
        missing = 0 if jump < 0 else missing or int(packet.is_corrupt)
        if missing:
            missing += 1
        if missing > patience:
            missing = 0
            yield "a part is missing", None
        try:
            frames = packet.decode()
        except error as fault:
            yield fault.strerror or "undecodable", None
            continue
        for frame in frames:
            odd.interlaced |= frame.interlaced_frame
            yield ("a frame is damaged" if frame.is_corrupt else ""), frame
    if missing:
        yield "a part is missing", None


class _Clock:
    """Watches the order of decoding, in which a file's times grow."""

    def __init__(self, fps: float, odd: Oddities) -> None:
        self._leap, self._odd = max(LEAP, FRAMES / fps), odd
        self._first: float | None = None
        self._last = 0.0

    def look(self, packet: Any, faulty: bool) -> float:
        """By how many seconds the clock jumps before this packet, mostly 0. After a fault a leap is what is missing."""
        if packet.dts is None:
            return 0.0
        now = packet.dts * float(packet.time_base)
        if self._first is None:
            self._first = self._last = now
        step, before, self._last = now - self._last, self._last, now
        if -BACK <= step <= self._leap or (faulty and step > 0):
            return 0.0
        if not self._odd.jumps:
            self._odd.jump, self._odd.jump_after = step, before - self._first
        self._odd.jumps += 1
        return step
