"""Seconds that check-data takes on class folders and on COCO, for several numbers of small generated images."""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from visionlora.data.checks.check_data import check

_SIDE, _CLASSES, _BURST = 32, 10, 5
"""Pixels of an image's side; classes; and nearly equal images of each scene."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where to generate them; by default a temporary folder")


def run(arguments: argparse.Namespace) -> int:
    print(f"{'images':>8} {'layout':>14} {'seconds':>9} {'CPU s':>8} {'CPU ms each':>12} {'bursts':>7} {'leaks':>6}")
    for count in arguments.images:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            root = Path(name)
            paths = generate(root / "set", count)
            for layout, path in (("class folders", root / "set"), ("COCO", write_coco(root, paths))):
                began, worked = time.perf_counter(), time.process_time()
                report = check(path)
                seconds, work = time.perf_counter() - began, time.process_time() - worked
                assert sum(part.images for part in report.parts) == count and not report.errors
                leaks = sum(leak.images for leak in report.leaks)
                row = f"{count:>8} {layout:>14} {seconds:>9.1f} {work:>8.1f} {1000 * work / count:>12.3f}"
                print(f"{row} {len(report.bursts):>7} {leaks:>6}", flush=True)
    return 0


def generate(folder: Path, count: int) -> list[Path]:
    """train and val, each with class folders; a fifth of the scenes are in bursts, and every fifth image validates."""
    generator = np.random.default_rng(0)
    paths = []
    scene = np.zeros((6, 6, 3), np.uint8)
    for number in range(count):
        if number % (_BURST * _BURST) == 0 or number % (_BURST * _BURST) >= _BURST:
            scene = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        part = "val" if number % 5 == 4 else "train"
        path = folder / part / f"class{number // 5 % _CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def write_coco(root: Path, paths: list[Path]) -> Path:
    """An object in each image."""
    size = {"width": _SIDE, "height": _SIDE}
    images = [
        {"id": number, "file_name": path.relative_to(root).as_posix(), "part": path.parts[-3], **size}
        for number, path in enumerate(paths)
    ]
    annotations = [
        {"id": number, "image_id": number, "category_id": number % _CLASSES, "bbox": [4, 4, 12, 9], "iscrowd": 0}
        for number in range(len(paths))
    ]
    categories = [{"id": label, "name": f"class{label}"} for label in range(_CLASSES)]
    path = root / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path
