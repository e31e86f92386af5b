"""Which detections of successive frames are the same object, by the package ``trackers``, of the extra ``track``."""

from types import ModuleType
from typing import Any

import numpy as np

from visionlora.errors import InputError

_LOST_SECONDS, _LOST_FRAMES = 1.0, 5
"""A track that nothing was found of for so long, or in so many frames where that is longer, is over."""
_RATE = 30.0
"""Frames per second that ``trackers`` counts its patience in."""


def import_tracking() -> tuple[ModuleType, ModuleType]:
    """``trackers`` and ``supervision``, or an ``InputError`` that says how to install them."""
    try:
        import supervision
        import trackers
    except ImportError as error:
        raise InputError(
            "--track, --zone and --line need trackers and supervision: pip install visionlora[track]"
        ) from error
    return trackers, supervision


class Tracks:
    """Gives objects numbers that they keep from frame to frame: ByteTrack (Zhang et al. 2022, arXiv:2110.06864) on what
    the detector is sure of, for what is below the classes' thresholds is gone before.

    Args:
        fps: frames per second that will be seen, about.
    """

    def __init__(self, fps: float) -> None:
        trackers, self._supervision = import_tracking()
        lost = max(_LOST_SECONDS, _LOST_FRAMES / fps)
        self._tracker: Any = trackers.ByteTrackTracker(
            lost_track_buffer=round(lost * _RATE),
            frame_rate=fps,
            track_activation_threshold=0.0,
            high_conf_det_threshold=0.0,
        )

    def update(self, boxes: np.ndarray, scores: np.ndarray, seconds: float) -> list[int | None]:
        """Take in a frame.

        Args:
            boxes: (N, 4) as x1, y1, x2, y2 in pixels.
            scores: (N,).
            seconds: of the frame; they grow.

        Returns:
            of each box the number of its object, from 0; None for one that was seen once so far.
        """
        order = np.arange(len(boxes))
        detections = self._supervision.Detections(
            xyxy=np.asarray(boxes, np.float64).reshape(-1, 4), confidence=np.asarray(scores), data={"order": order}
        )
        found = self._tracker.update(detections, timestamp=seconds)
        numbers: list[int | None] = [None] * len(boxes)
        if len(found):
            for place, number in zip(found.data["order"].tolist(), found.tracker_id.tolist(), strict=True):
                numbers[place] = number if number >= 0 else None
        return numbers
