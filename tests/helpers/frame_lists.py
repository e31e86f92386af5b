"""Lists of frames for images that are there already."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path


def write_frame_list(
    folder: Path,
    images: Iterable[Path],
    cameras: tuple[str, ...] = ("gate", "yard"),
    step: float = 60.0,
    dated: bool = True,
    lights: tuple[str, ...] = ("day",),
) -> Path:
    """Images in turn belong to each camera, whose time goes on by ``step`` seconds from one to the next."""
    start, lines = datetime(2024, 5, 31, 12), []
    for index, path in enumerate(images):
        number, camera = divmod(index, len(cameras))
        entry = {
            "file": path.relative_to(folder).as_posix(),
            "camera": cameras[camera],
            "recording": "a",
            "frame": number,
            "seconds": number * step,
            "time": (start + timedelta(seconds=number * step)).isoformat() if dated else None,
            "light": lights[number % len(lights)],
        }
        lines.append(json.dumps(entry))
    path = folder / "frames.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
