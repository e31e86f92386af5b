"""An alarm when a camera's pictures no longer look like those that its model was trained on, with the likely cause."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from visionlora.data.picture_statistics import FEATURES, Picture, PictureStatistics, measure

WINDOW = 15
"""Pictures whose median is judged: one that is odd is no alarm, and neither are seven."""
APART = 1.0
"""Seconds between two of them."""

_CAUSES = {
    ("brightness", -1): "darker",
    ("brightness", 1): "brighter",
    ("contrast", -1): "less contrast",
    ("contrast", 1): "more contrast",
    ("sharpness", -1): "blurred",
    ("sharpness", 1): "sharper",
    ("noise", -1): "blurred: smoother",
    ("noise", 1): "noisier",
    ("red", -1): "another colour",
    ("red", 1): "another colour",
    ("blue", -1): "another colour",
    ("blue", 1): "another colour",
    ("saturation", -1): "another colour: paler, as in infrared",
    ("saturation", 1): "another colour: stronger",
    ("layout", -1): "moved: another view",
}
_GONE, _KEPT = np.log(1 / 4), np.log(1 / 2)
"""A cell with a quarter of its texture is covered, and one with half of it is not."""
_SHARE = 0.2
"""Of the cells that are covered where a camera is blocked, and that are not."""
_SHARP = 0.5
"""Of what is allowed: so much sharpness may be lost in fog."""


@dataclass(frozen=True)
class Alarm:
    """What is off.

    Attributes:
        cause: the likeliest, in words.
        off: how far, in units of what is allowed: above 1.
    """

    cause: str
    off: float


def judge(statistics: PictureStatistics, pictures: list[Picture]) -> Alarm | None:
    """What is off with several pictures, or None."""
    ratio = statistics.off(pictures) / statistics.limit
    ratio[FEATURES.index("layout")] = min(ratio[FEATURES.index("layout")], 0.0)
    worst = int(np.abs(ratio).argmax())
    if abs(ratio[worst]) <= 1:
        return None
    cause = _CAUSES[FEATURES[worst], 1 if ratio[worst] > 0 else -1]
    lost, by_name = statistics.texture_lost(pictures), dict(zip(FEATURES, ratio.tolist(), strict=True))
    covered = (lost < _GONE).mean()
    if covered >= _SHARE and ((lost > _KEPT).mean() >= _SHARE or covered >= 1 - _SHARE):
        cause = "blocked: a part shows nothing any more"
    elif np.median(lost) < _KEPT and by_name["brightness"] > 0 and by_name["sharpness"] > -_SHARP:
        cause = "less contrast, as in fog or glare"  # what is blurred has lost its finest details above all
    return Alarm(cause, float(abs(ratio[worst])))


class DriftWatch:
    """Looks at a picture each ``APART`` seconds, and at the last ``WINDOW`` of them together."""

    def __init__(self, statistics: PictureStatistics) -> None:
        self._statistics = statistics
        self._pictures: deque[Picture] = deque(maxlen=WINDOW)
        self._next = 0.0
        self._cause = ""

    def look(self, image: np.ndarray, seconds: float) -> str:
        """Take in a frame, (H, W, 3) uint8 RGB; a line where an alarm begins, changes or ends, and else nothing."""
        if seconds < self._next:
            return ""
        self._next = seconds + APART
        self._pictures.append(measure(image))
        if len(self._pictures) < WINDOW:
            return ""
        alarm = judge(self._statistics, list(self._pictures))
        cause = alarm.cause if alarm else ""
        if cause == self._cause:
            return ""
        before, self._cause = self._cause, cause
        if alarm is None:
            return f"the picture is again as in training (it was {before})"
        return (
            f"alarm: the picture is not as in training: {alarm.cause} ({alarm.off:.1f} times what is allowed); what is "
            f"found may be wrong"
        )
