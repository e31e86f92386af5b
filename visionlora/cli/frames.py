"""``visionlora frames``."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from visionlora.cli.show import progress, say
from visionlora.cli.videos import open_videos, say_passed_over
from visionlora.data.video import VideoFrames
from visionlora.errors import InputError
from visionlora.footage.frames import extract_frames


def frames(videos: Sequence[Path], out: Path, every: int, annotations: Path | None) -> int:
    """Write videos' frames under a progress bar, and say what there is; the exit code.

    One video's go to ``out``, those of several each to a folder of its name.
    """
    if len(videos) > 1 and annotations is not None:
        raise InputError(f"--annotations {annotations}: counts the frames of one video; give one at a time")
    names = Counter(path.stem for path in videos)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(
            f"{out / twice[0]} would be the folder of several videos; save their frames one after the other"
        )
    opened, refused = open_videos(videos, every, alone=len(videos) == 1)
    if not opened:
        raise InputError(f"none of the {len(videos)} videos can be read")
    for path, video in opened.items():
        _extract(video, out if len(videos) == 1 else out / path.stem, annotations)
    return say_passed_over(refused)


def _extract(video: VideoFrames, out: Path, annotations: Path | None) -> None:
    total = None if video.frame_count is None else -(-video.frame_count // video.every)
    with progress("saving frames", total) as advance:
        number, damage = extract_frames(video, out, annotations, advance)
    for line in (damage, *video.remarks):
        if line:
            say(line)
    say(f"{number} frames of {video.width} x {video.height} pixels in {out}/images")
    if annotations is not None:
        say(f"{out}/annotations.json names them; visionlora check-data looks at them")
