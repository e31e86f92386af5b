"""``scripts/benchmark.py loader``: both ways read the same images, and only one of them follows from its keys."""

import numpy as np
import pytest
import torch

from benchmark import main
from benchmarks.loader import unseeded
from visionlora.data.classification.transforms import Preprocessing, train_transform


def test_it_prints_a_line_for_each_way(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert main(["loader", "--images", "3", "--size", "32", "--rounds", "2"]) == 0
    torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    assert shown.startswith("3 images at 32 px, augment=light")
    assert shown.count("ms of CPU time an image") == 2
    assert "visionlora / torch: " in shown and "seeds: " in shown


def test_without_seeds_the_same_key_gives_another_picture() -> None:
    pre = Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0)
    seeded = train_transform(pre, "light")
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert torch.equal(seeded(image, 3), seeded(image, 3))
    other = unseeded(seeded)
    assert not torch.equal(other(image, 3), other(image, 3))
