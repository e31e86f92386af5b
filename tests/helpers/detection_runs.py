"""Tiny detection runs on coloured squares, for the tests of this folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionlora.config import check_config
from visionlora.demo.base import MEAN, STD, base_path
from visionlora.tasks.detection.config import DetectionConfig

BASE = {"name": "fcos", "backbone": "test_resnet", "checkpoint": str(base_path()), "mean": MEAN, "std": STD}
"""The demo's base has seen generated streets: enough to learn from in seconds, where random weights need minutes."""
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}
WIDTH, HEIGHT = 96, 64


def make_scenes(root: Path, train: int = 12, val: int = 4, masks: bool = False, val_objects: bool = True) -> Path:
    """root/scenes.json over images of one or two coloured squares each; the third has none. Its path.

    The field ``day`` of each image is ``monday`` for training and ``friday`` for validation.
    """
    generator = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    root.mkdir(parents=True, exist_ok=True)
    for number in range(train + val):
        pixels = generator.normal(110, 12, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
        is_train = number < train
        for place in range(number % 2 + 1 if number != 2 and (is_train or val_objects) else 0):
            side = int(generator.integers(18, 30))
            x = int(generator.integers(place * 48, place * 48 + 48 - side))
            y = int(generator.integers(0, HEIGHT - side))
            label = int(generator.integers(2))
            pixels[y : y + side, x : x + side] = list(COLOURS.values())[label]
            ring = [x, y, x + side, y, x + side, y + side, x, y + side]
            entry = {"image_id": number, "category_id": label + 1, "bbox": [x, y, side, side], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **entry, **({"segmentation": [ring]} if masks else {})})
        Image.fromarray(pixels).save(root / f"{number:02}.png")
        day = "monday" if is_train else "friday"
        images.append({"id": number, "file_name": f"{number:02}.png", "width": WIDTH, "height": HEIGHT, "day": day})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(COLOURS)]
    path = root / "scenes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def make_detection_config(
    annotations: Path,
    out: Path,
    model: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    **train: Any,
) -> DetectionConfig:
    """A run of a few seconds; the keywords replace settings."""
    layout = {"levels": [3, 4, 5], "fpn_channels": 32, "head_convs": 1, "size": 96}
    settings = {"epochs": 2, "batch_size": 4, "log_every": 1, "checkpoint_every": 2, "lr": 5e-3, "head_lr": 5e-3}
    days = {"train": {"day": ["monday"]}, "val": {"day": ["friday"]}}
    config = check_config(
        {
            "task": "detection",
            "model": {**BASE, **layout, **(model or {})},
            "data": {"annotations": str(annotations), "workers": 0, "augment": "none", **days, **(data or {})},
            "lora": {"rank": 4},
            "train": {**settings, **train},
            "out": str(out),
        }
    )
    assert isinstance(config, DetectionConfig)
    return config


SHAPES = ((96, 64), (64, 96), (96, 30), (96, 96), (30, 96), (120, 70))
"""Width and height; some are padded to one size, and some to others."""


def of_many_shapes(annotations: Path) -> Path:
    """Stretch the pictures of ``make_scenes`` to ``SHAPES``, one after the other, with their boxes. The same path."""
    content = json.loads(annotations.read_text())
    for index, image in enumerate(content["images"]):
        width, height = SHAPES[index % len(SHAPES)]
        path = annotations.parent / image["file_name"]
        Image.open(path).resize((width, height)).save(path)
        across, down = width / image["width"], height / image["height"]
        image["width"], image["height"] = width, height
        for thing in content["annotations"]:
            if thing["image_id"] == image["id"]:
                x, y, w, h = thing["bbox"]
                thing["bbox"] = [x * across, y * down, w * across, h * down]
                for ring in thing.get("segmentation", []):
                    ring[::2], ring[1::2] = [v * across for v in ring[::2]], [v * down for v in ring[1::2]]
    annotations.write_text(json.dumps(content))
    return annotations
