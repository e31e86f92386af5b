"""``visionlora predict`` with a detector."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionlora.cli.predict import SHOWN, find_images, readable
from visionlora.cli.show import check_out, print_table, progress
from visionlora.data.detection.tile_joining import Detections
from visionlora.data.images import is_image, read_image
from visionlora.data.video import DamagedVideo, VideoFrames
from visionlora.data.video_writer import VideoWriter
from visionlora.errors import InputError
from visionlora.files import write_atomic
from visionlora.tasks.detection_pictures import draw_detections
from visionlora.tasks.detection_results import to_results, write_results
from visionlora.training.detecting import predict_detections, thresholds_of
from visionlora.training.run import pick_device
from visionlora.training.trained import Trained

_CHUNK = 8
"""Images in memory at a time."""


@dataclass(frozen=True)
class Options:
    """What is wanted of the predictions.

    Attributes:
        out: the file for COCO's results; ``image_id`` is the image's path, with ``#`` and the frame's number for a
            video, and ``category_id`` counts the classes from 1.
        draw: an empty or absent folder for the images with what was found.
        min_score: of what is kept; None for the thresholds that the run suggests for each class.
        every: take each n-th frame of a video.
    """

    out: Path | None
    draw: Path | None
    min_score: float | None
    every: int


@dataclass(frozen=True)
class Source:
    """An image or a video to look at, and where to draw it."""

    path: Path
    target: Path | None
    video: VideoFrames | None = None

    @property
    def images(self) -> int | None:
        """How many there are; None if the video doesn't say."""
        if self.video is None:
            return 1
        return None if self.video.frame_count is None else -(-self.video.frame_count // self.video.every)


def predict(trained: Trained, paths: list[Path], options: Options, device: str, skip_unreadable: bool) -> None:
    """Print a table of what was found, and write results and drawings if asked."""
    check_out(options.out)
    _check_draw(options.draw)
    sources = _sources(paths, options, skip_unreadable)
    thresholds, place = thresholds_of(trained, options.min_score), pick_device(device)
    trained.model.to(place)
    results: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    ids = list(range(1, len(trained.classes) + 1))
    lengths = [source.images for source in sources]
    known = [length for length in lengths if length is not None]
    with progress("predicting", sum(known) if len(known) == len(lengths) else None) as advance:
        for source in sources:
            counts: Counter[str] = Counter()
            with ExitStack() as files:
                draw = _drawing(source, trained.classes, files)
                frames = _frames(source)
                while chunk := list(islice(frames, _CHUNK)):
                    found = predict_detections(trained, [image for _, image in chunk], thresholds, place)
                    for (image_id, image), one in zip(chunk, found, strict=True):
                        results += to_results(one, image_id, ids)
                        counts.update(trained.classes[label] for label in one["labels"].tolist())
                        if draw is not None:
                            draw(image, one)
                    advance(len(chunk))
            shown = "  ".join(f"{name} {counts[name]}" for name in trained.classes if counts[name])
            rows.append([str(source.path), shown or "nothing"])
    print_table(["image", "objects found"], rows[:SHOWN])
    if len(rows) > SHOWN:
        print(f"and {len(rows) - SHOWN} more{'' if options.out else '; --out FILE writes them all'}")
    if options.out is not None:
        write_results(options.out, results)
    if options.draw is not None:
        print(f"drawn into {options.draw}")


def _sources(paths: list[Path], options: Options, skip_unreadable: bool) -> list[Source]:
    found = {path: path.relative_to(given) for given in paths if given.is_dir() for path in find_images([given])}
    found |= {path: Path(path.name) for path in find_images([given for given in paths if not given.is_dir()])}
    images = set(readable([path for path in found if is_image(path)], skip_unreadable))
    sources = []
    for path, name in found.items():
        video = None if is_image(path) else VideoFrames(path, options.every)
        target = options.draw / name.with_suffix(".png" if video is None else ".mp4") if options.draw else None
        if video is not None or path in images:
            sources.append(Source(path, target, video))
    if not sources:
        raise InputError("no image is left: none of them can be read")
    targets = Counter(source.target for source in sources if source.target is not None)
    if twice := [target for target, count in targets.items() if count > 1]:
        raise InputError(f"--draw: {twice[0]} would be the drawing of several images; predict them one after the other")
    return sources


def _frames(source: Source) -> Iterator[tuple[str, np.ndarray]]:
    """Image id and pixels of each image; what is damaged in a video is told."""
    if source.video is None:
        yield str(source.path), read_image(source.path)
        return
    try:
        for frame in source.video:
            yield f"{source.path}#{frame.number}", frame.image
    except DamagedVideo as damage:
        print(damage)


def _drawing(
    source: Source, classes: Sequence[str], files: ExitStack
) -> Callable[[np.ndarray, Detections], None] | None:
    """What to call with each image and what was found in it; None if nothing is to be drawn."""
    target, video, writer = source.target, source.video, None
    if target is None:
        return None
    if video is not None:
        writer = files.enter_context(VideoWriter(target, video.fps / video.every, (video.width, video.height)))

    def draw(image: np.ndarray, found: Detections) -> None:
        masks = found.get("masks")
        drawn = draw_detections(image, found["boxes"], found["labels"], found["scores"], masks, classes)
        if writer is not None:
            writer.write(drawn)
        else:
            write_atomic(target, lambda path: Image.fromarray(drawn).save(path, format="PNG"))

    return draw


def _check_draw(folder: Path | None) -> None:
    if folder is None:
        return
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"--draw {folder}: {path} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"--draw {folder}: is not empty; give another folder")
