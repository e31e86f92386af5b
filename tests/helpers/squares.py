"""Generated squares to train on, and what a command leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (30, 30, 200), "green": (30, 200, 30), "red": (200, 30, 30)}


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def write_squares(folder: Path, per_class: int, seed: int) -> None:
    """folder/colour/number.png, 32 x 32 and noisy."""
    generator = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = np.clip(np.array(colour) + generator.normal(0, 20, (32, 32, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")


def write_config(folder: Path, data: Path) -> Path:
    path = folder / "squares.yaml"
    path.write_text(
        f"model: {{name: test_resnet, pretrained: false, img_size: 32}}\n"
        f"data: {{root: {data}, augment: none, workers: 0}}\n"
        f"train: {{epochs: 1, batch_size: 6, device: cpu, lr: 1e-2, warmup_epochs: 0}}\n"
        f"out: {folder / 'run'}\n"
    )
    return path
