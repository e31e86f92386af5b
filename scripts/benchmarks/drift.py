"""How much of what befalls a camera its alarm notices and names, and how often it is wrong on clean footage."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.corruptions import CORRUPTIONS
from visionlora.data.folders import images_in
from visionlora.data.images import is_image, read_image
from visionlora.data.picture_statistics import PictureStatistics, evenly, measure
from visionlora.data.video import VideoFrames
from visionlora.demo.scenes import DAY, make_scene
from visionlora.footage.drift import WINDOW, judge

NAMED = {"night": "darker", "fog": "less", "noise": "noisier", "blur": "blurred", "shifted": "moved"}
NAMED |= {"blocked": "blocked", "tinted": "another"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("footage", nargs="*", type=Path, help="videos, and folders of images whose names are in order")
    parser.add_argument("--share", type=float, default=0.4, help="of the frames, from the first, that are trained on")
    parser.add_argument("--every", type=int, default=1, help="take each n-th frame")
    parser.add_argument("--scenes", type=int, default=0, help="also so many scenes of the generated day camera")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> int:
    print(f"windows of {WINDOW} pictures: alarms/windows (of them with the right cause)")
    _row(["footage", "to fit", "clean", *CORRUPTIONS])
    if arguments.scenes:
        scenes = [np.asarray(make_scene(DAY, arguments.seed, index).image) for index in range(arguments.scenes)]
        _row(["generated", *_measured(scenes, round(arguments.share * len(scenes)), arguments.seed)])
    for path in arguments.footage:
        frames = list(_frames(path, arguments.every))
        _row([path.stem, *_measured(frames, round(arguments.share * len(frames)), arguments.seed)])
    return 0


def _row(cells: list[str]) -> None:
    print(f"{cells[0]:>12}" + "".join(f"{cell:>13}" for cell in cells[1:]), flush=True)


def _frames(path: Path, every: int) -> Iterator[np.ndarray]:
    if path.is_dir():
        yield from (read_image(image) for image in images_in(path)[::every])
    elif is_image(path):
        yield read_image(path)
    else:
        yield from (frame.image for frame in VideoFrames(path, every))


def _measured(frames: list[np.ndarray], fit: int, seed: int) -> list[str]:
    statistics = PictureStatistics.of(frames[place] for place in evenly(fit))
    if statistics is None:
        raise SystemExit("too few frames")
    generator = np.random.default_rng(seed)
    windows = [frames[start : start + WINDOW] for start in range(fit, len(frames) - WINDOW + 1, WINDOW)]
    clean = sum(judge(statistics, [measure(one) for one in window]) is not None for window in windows)
    cells = [str(fit), f"{clean}/{len(windows)}"]
    for name, corruption in CORRUPTIONS.items():
        alarms = [judge(statistics, [measure(corruption(one, generator)) for one in window]) for window in windows]
        named = sum(alarm is not None and alarm.cause.startswith(NAMED[name]) for alarm in alarms)
        cells.append(f"{sum(alarm is not None for alarm in alarms)}/{len(windows)} ({named})")
    return cells
