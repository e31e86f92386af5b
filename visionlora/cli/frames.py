"""``visionlora frames``."""

from pathlib import Path

from visionlora.cli.show import progress
from visionlora.data.video import VideoFrames
from visionlora.footage.frames import extract_frames


def frames(video: Path, out: Path, every: int, annotations: Path | None) -> None:
    """Write a video's frames under a progress bar, and say what there is."""
    source = VideoFrames(video, every)
    total = None if source.frame_count is None else -(-source.frame_count // every)
    with progress("saving frames", total) as advance:
        number, damage = extract_frames(source, out, annotations, advance)
    if damage:
        print(damage)
    print(f"{number} frames of {source.width} x {source.height} pixels in {out}/images")
    if annotations is not None:
        print(f"{out}/annotations.json names them; visionlora check-data looks at them")
