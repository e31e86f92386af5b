"""Tiny segmentation runs on coloured squares, for the tests of this folder and others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionlora.config import check_config
from visionlora.demo.base import MEAN, STD, base_path
from visionlora.tasks.segmentation.config import SegmentationConfig

BASE = {"name": "fpn", "backbone": "test_resnet", "checkpoint": str(base_path()), "mean": MEAN, "std": STD}
"""The demo's base has seen generated streets: enough to learn from in seconds, where random weights need minutes."""
COLOURS = {"ground": (110, 110, 110), "red": (220, 40, 40), "blue": (40, 60, 220)}
CLASSES_YAML = """classes:
  - {name: ground, color: [110, 110, 110], value: 3}
  - {name: red, color: [220, 40, 40], value: 7}
  - {name: blue, color: [40, 60, 220], value: 1}
  - {name: void, color: [0, 0, 0], value: 9}
ignore: void
"""
VALUES = [3, 7, 1]
WIDTH, HEIGHT = 90, 62
"""No multiples of a stride."""


def make_masks(root: Path, train: int = 12, val: int = 4, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """root/train/images, root/train/masks, root/val/...; index masks of two squares each; and root/classes.yaml."""
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for number in range(count):
            pixels, labels = draw_scene(generator, width, height)
            save(root / part / "images" / f"{number:02}.png", pixels)
            mask = np.array(VALUES, np.uint8)[labels]
            mask[:3] = 9
            save(root / part / "masks" / f"{number:02}.png", mask)
    (root / "classes.yaml").write_text(CLASSES_YAML)
    return root


def draw_scene(generator: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 and (H, W) classes: a red square at the left and a blue one at the right, anywhere."""
    labels = np.zeros((height, width), np.uint8)
    for place in range(2):
        side = int(generator.integers(height // 3, height // 2))
        x = place * width // 2 + int(generator.integers(0, width // 2 - side + 1))
        y = int(generator.integers(0, height - side))
        labels[y : y + side, x : x + side] = int(generator.integers(1, 3))
    pixels = np.array(list(COLOURS.values()))[labels] + generator.normal(0, 12, (height, width, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_polygons(root: Path, count: int = 10) -> Path:
    """root/scenes.json: COCO with a polygon for each of a few squares. Its path."""
    generator = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        pixels = generator.normal(110, 12, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
        for _ in range(number % 2 + 1):
            side = int(generator.integers(18, 30))
            x, y = int(generator.integers(0, WIDTH - side)), int(generator.integers(0, HEIGHT - side))
            label = int(generator.integers(1, 3))
            pixels[y : y + side, x : x + side] = list(COLOURS.values())[label]
            ring = [x, y, x + side, y, x + side, y + side, x, y + side]
            entry = {"image_id": number, "category_id": label, "bbox": [x, y, side, side], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **entry, "segmentation": [ring]})
        save(root / f"{number:02}.png", pixels)
        images.append({"id": number, "file_name": f"{number:02}.png", "width": WIDTH, "height": HEIGHT})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    path = root / "scenes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def make_segmentation_config(
    root: Path | None,
    out: Path,
    model: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    **train: Any,
) -> SegmentationConfig:
    """A run of a few seconds over what ``make_masks`` left in ``root``; the others replace settings."""
    settings = {"epochs": 2, "batch_size": 4, "log_every": 1, "lr": 5e-3, "head_lr": 5e-3}
    settings |= {"checkpoint_every": 2, "evaluate_every": 2}
    masks = {} if root is None else {"root": str(root), "classes": str(root / "classes.yaml")}
    config = check_config(
        {
            "task": "segmentation",
            "model": {**BASE, "channels": 16, "size": WIDTH, **(model or {})},
            "data": {**masks, "workers": 0, "augment": "none", **(data or {})},
            "lora": {"rank": 4},
            "train": {**settings, **train},
            "out": str(out),
        }
    )
    assert isinstance(config, SegmentationConfig)
    return config
