"""What ``visionlora predict`` is asked of footage, as it stands on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from visionlora.cli.durations import seconds_of
from visionlora.errors import InputError
from visionlora.footage.watching import Wanted
from visionlora.footage.zones import read_place

PIECES, PATIENCE = 600.0, 600.0
"""Seconds of a stream's drawn MP4, and for which a lost one is tried again, where nothing else is asked for."""


@dataclass(frozen=True)
class FootageOptions:
    """What is asked for of videos and streams.

    Attributes:
        wanted: tracks, zones and lines.
        pieces: seconds of each drawn MP4; None for one of the whole, and of a stream for ``PIECES``.
        limit: seconds after which a stream is left; None for never.
        patience: seconds for which a lost stream is tried again; None for ``PATIENCE``.
    """

    wanted: Wanted = field(default_factory=Wanted)
    pieces: float | None = None
    limit: float | None = None
    patience: float | None = None

    def given(self) -> list[str]:
        """The options that are for footage."""
        given = {"--track": self.wanted.track, "--zone": self.wanted.zones, "--line": self.wanted.lines}
        return [option for option, value in {**given, "--pieces": self.pieces}.items() if value]

    def given_of_streams(self) -> list[str]:
        """The options that are for live streams."""
        given = {"--for": self.limit, "--patience": self.patience}
        return [option for option, value in given.items() if value is not None]


def footage_options(
    track: bool, zones: Sequence[str], lines: Sequence[str], pieces: str | None, limit: str | None, patience: str | None
) -> FootageOptions:
    """The options as they were given. InputError for one that can't be read."""
    read_zones, read_lines = (
        tuple(read_place(text, option) for text in texts) for texts, option in ((zones, "--zone"), (lines, "--line"))
    )
    times = {"--pieces": pieces, "--for": limit, "--patience": patience}
    read = {option: None if text is None else seconds_of(text, option) for option, text in times.items()}
    return FootageOptions(Wanted(track, read_zones, read_lines), read["--pieces"], read["--for"], read["--patience"])


def read_thresholds(texts: Sequence[str]) -> dict[str, float]:
    """``NAME=0.6`` as it is given with ``--threshold``, by class. InputError for what is not that."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not name or not 0 <= value <= 1:
            raise InputError(f"--threshold {text}: is not CLASS=SCORE with a score of 0 to 1")
        found[name] = value
    return found
