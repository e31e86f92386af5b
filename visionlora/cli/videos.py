"""Several videos, of which one may be no video."""

from collections.abc import Sequence
from pathlib import Path

from visionlora.cli.show import say
from visionlora.data.video import VideoFrames
from visionlora.errors import InputError, some


def open_videos(paths: Sequence[Path], every: int, alone: bool) -> tuple[dict[Path, VideoFrames], list[Path]]:
    """The videos, of which each ``every``-th frame is wanted, and those that can't be read; why is printed.

    Raises:
        InputError: the only file there is can't be read, which is what ``alone`` says.
    """
    videos: dict[Path, VideoFrames] = {}
    refused: list[Path] = []
    for path in paths:
        try:
            videos[path] = VideoFrames(path, every)
        except InputError as error:
            if alone:
                raise
            say(f"passed over: {error}")
            refused.append(path)
    return videos, refused


def say_passed_over(refused: Sequence[Path]) -> int:
    """End with the videos that were passed over; the exit code, which is 1 if there are some."""
    if refused:
        say(f"passed over because they can't be read: {some(refused)}")
    return int(bool(refused))
