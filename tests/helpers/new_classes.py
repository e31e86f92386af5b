"""A base that knows some colours, and images of others, for tests of what keeps a base's classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from helpers.runs import make_config, make_images
from visionlora.cli.merge import merge
from visionlora.sections import RunConfig
from visionlora.training.run import train

NEW = {"grey": (128, 128, 128), "yellow": (220, 210, 40)}


def make_base(folder: Path) -> Path:
    """Weights of a tiny classifier of blue, green and red, as ``visionlora merge`` writes them."""
    out = folder / "base.safetensors"
    run = train(make_config(make_images(folder / "old"), folder / "base_run", epochs=8, evaluate_every=8), quiet=True)
    merge(run.folder, out, None, overwrite=False, download=False)
    return out


def make_new(root: Path, colours: dict[str, tuple[int, int, int]] = NEW, train: int = 8, val: int = 4) -> Path:
    """An image folder of noisy squares of other colours, 32 px."""
    generator = np.random.default_rng(1)
    for part, count in (("train", train), ("val", val)):
        for name, colour in colours.items():
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.array(colour) + generator.normal(0, 60, (32, 32, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / part / name / f"{index}.png")
    return root


def keeping(data: Path, base: Path, out: Path, keep_classes: bool | str = True, epochs: int = 6) -> RunConfig:
    """A run of a few seconds that adds the data's classes to a base's."""
    config = make_config(data, out, epochs=epochs, evaluate_every=epochs, keep_classes=keep_classes)
    model = config.model.model_copy(update={"checkpoint": base, "pretrained": True})
    return config.model_copy(update={"model": model})
