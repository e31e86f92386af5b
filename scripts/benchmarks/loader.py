"""CPU time of a training image: our loader beside torch's with the same transforms, and the cost of its seeds."""

import argparse
import copy
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from visionlora.data.augmentations import STRENGTHS
from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.classification.samples import ClassificationDataset
from visionlora.data.classification.transforms import Preprocessing, train_transform
from visionlora.data.loading import batches, epoch_order, make_loader, sample_seed

_BATCH, _WIDTH, _HEIGHT = 32, 500, 375
"""Images of a batch; pixels of the generated photos."""


class Plain(Dataset[tuple[torch.Tensor, int]]):
    """What one writes by hand: PIL, and a transform that draws from generators of its own."""

    def __init__(self, paths: list[Path], transform: Callable[[np.ndarray, int], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(np.array(image.convert("RGB")), 0), 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=256, help="generated photos of 500 x 375 (%(default)s)")
    parser.add_argument("--folder", type=Path, help="JPEGs to take instead")
    parser.add_argument("--size", type=int, default=224, help="pixels of the model's side (%(default)s)")
    parser.add_argument("--augment", choices=STRENGTHS, default="light")
    parser.add_argument("--rounds", type=int, default=7)


def run(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        paths = sorted(arguments.folder.rglob("*.jpg")) if arguments.folder else _photos(Path(name), arguments.images)
        size = arguments.size
        pre = Preprocessing(size, size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0)
        seeded = train_transform(pre, arguments.augment)
        data = LabelledImages(paths, [(0,)] * len(paths), ["a"])
        ways: dict[str, Callable[[int], Iterable[Any]]] = {
            "torch": lambda _: DataLoader(Plain(paths, unseeded(seeded)), _BATCH, shuffle=True),
            "visionlora": lambda epoch: _ours(data, seeded, epoch),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for epoch in range(arguments.rounds + 1):  # the first is not counted
            for way, loader in ways.items():
                began = time.process_time()
                for _ in loader(epoch):
                    pass
                seconds[way].append(time.process_time() - began)
    print(
        f"{len(paths)} images at {size} px, augment={arguments.augment}, one thread, {arguments.rounds} rounds in turn"
    )
    for way, values in seconds.items():
        print(f"{way:>14}: {1000 * median(values[1:]) / len(paths):.2f} ms of CPU time an image")
    _print_ratio("visionlora / torch", seconds["visionlora"], seconds["torch"])
    seeds, image = _seeding(seeded, rounds=2000), median(seconds["visionlora"][1:]) / len(paths)
    print(f"seeds: {1e6 * seeds:.0f} microseconds of these, {seeds / image:.1%}")
    return 0


def unseeded(transform: Any) -> Any:
    """The same transform, whose generators go on from image to image."""
    other = copy.deepcopy(transform)
    compose = other._augment._compose
    other._augment = lambda image, _seed: compose(image=image)["image"]
    return other


def _ours(data: LabelledImages, transform: Any, epoch: int) -> Iterable[Any]:
    dataset = ClassificationDataset(data, transform, seed=0, train=True)
    keys = batches(epoch_order(len(data), 0, epoch), epoch, _BATCH, drop_last=False)
    return make_loader(dataset, keys, workers=0, leave_out=True)


def _seeding(transform: Any, rounds: int) -> float:
    """Seconds for an image's seed and what is made of it. A loader without them can't be told from noise."""
    began = time.process_time()
    for index in range(rounds):
        seed = sample_seed(0, 1, index)
        transform._augment._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return (time.process_time() - began) / rounds


def _print_ratio(name: str, ours: list[float], theirs: list[float]) -> None:
    ratios = [a / b for a, b in zip(ours[1:], theirs[1:], strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    print(f"{name}: {median(ratios):.3f} ({low:.3f}-{high:.3f})")


def _photos(folder: Path, count: int) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        scene = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        scene.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths
