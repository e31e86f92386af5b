"""Where a video is damaged: the spans that no good frame comes from."""

from dataclasses import dataclass, field

_APART = 32
"""Frames between what the container reports as lost and the gap it leaves: decoders hold some back."""

_SPANS = 1000
"""Spans that are told apart; more are one with the last."""

Span = tuple[float, float]


@dataclass
class Damage:
    """Watches the frames that come: good ones, damaged ones, and faults without a frame.

    Attributes:
        step: seconds between two frames, on average.
    """

    step: float
    _spans: list[Span] = field(default_factory=list)
    _last: float = 0.0
    _damaged: bool = False
    _gap: Span | None = None
    _since: int = _APART + 1
    _waiting: int = 0

    def good(self, seconds: float) -> None:
        """A good frame, of this time."""
        span, self._last = (self._last, seconds), seconds
        is_gap = span[1] - span[0] > 1.5 * self.step
        if self._damaged or (is_gap and self._waiting) or self._waiting == 1:  # 1: nothing is missing around it
            self._note(span)
        elif is_gap:
            self._gap, self._since = span, 0
        self._damaged = False
        self._waiting = max(0, self._waiting - 1)
        self._since += 1

    def damaged(self) -> None:
        """A frame that is no good."""
        self._damaged = True

    def lost(self) -> None:
        """A fault that left no frame: its gap came shortly before, or is still to come."""
        if self._since > _APART:
            self._waiting = self._waiting or _APART
        elif self._gap is not None:
            self._note(self._gap)

    def spans(self, end: float) -> list[Span]:
        """From the last good frame before to the first one behind, in seconds; ``end`` is the video's."""
        found = sorted([*self._spans, *([(self._last, end)] if self._damaged or self._waiting else [])])
        joined: list[Span] = []
        for start, stop in found:
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
            else:
                joined.append((start, stop))
        return joined

    def _note(self, span: Span) -> None:
        if len(self._spans) >= _SPANS:
            span = (self._spans.pop()[0], span[1])
        self._spans.append(span)
        self._gap, self._since, self._waiting = None, 0, 0
