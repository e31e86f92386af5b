"""The most different images are picked, the same ones each time."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from visionlora.errors import InputError
from visionlora.footage.picking import farthest_first, image_features
from visionlora.models.classifier import create_classifier


def plain_loop(rows: np.ndarray, count: int) -> list[int]:
    """Word for word."""
    mean = rows.mean(axis=0)
    chosen = [min(range(len(rows)), key=lambda i: (float(np.linalg.norm(rows[i] - mean)), i))]
    while len(chosen) < count:
        left = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(left, key=lambda i: (min(float(np.linalg.norm(rows[i] - rows[j])) for j in chosen), -i)))
    return chosen


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_each_is_the_farthest_from_those_before(count: int) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    picked = farthest_first(rows, count)
    assert [index for index, _ in picked] == plain_loop(rows, count)
    for place, (index, distance) in enumerate(picked[1:], start=1):
        before = [rows[other] for other, _ in picked[:place]]
        assert distance == pytest.approx(min(np.linalg.norm(rows[index] - other) for other in before), rel=1e-5)
    assert picked == farthest_first(rows, 20)[:count]


def test_it_comes_within_twice_of_the_best_cover() -> None:
    rows = np.random.default_rng(1).normal(size=(9, 2))

    def radius(chosen: list[int]) -> float:
        return float(max(min(np.linalg.norm(row - rows[i]) for i in chosen) for row in rows))

    best = min(radius(list(chosen)) for chosen in combinations(range(9), 3))
    assert radius([index for index, _ in farthest_first(rows, 3)]) <= 2 * best


def test_equal_images_are_picked_last_and_each_once() -> None:
    rows = np.array([[0.0, 0], [0, 0], [1, 0], [0, 1], [0, 0]])
    picked = [index for index, _ in farthest_first(rows, 5)]
    assert sorted(picked) == [0, 1, 2, 3, 4]
    assert set(picked[:3]) == {0, 2, 3}
    for count in (0, 6):
        with pytest.raises(InputError, match="can't be picked"):
            farthest_first(rows, count)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_features_are_what_enters_the_head(tmp_path: Path, name: str) -> None:
    """As timm's own forward_features and pooling have it, of the whole squashed image."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(rng.integers(0, 256, (90, 200, 3), dtype=np.uint8)).save(paths[-1])
    torch.manual_seed(0)
    classifier = create_classifier(name, 5, pretrained=False)
    found = image_features(classifier, paths)
    config = classifier.data_config
    side = config["input_size"][1:]
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[config["interpolation"]]
    pixels = np.stack([np.asarray(Image.open(path).resize(side[::-1], resample)) for path in paths])
    inputs = (pixels / 255 - np.array(config["mean"])) / np.array(config["std"])
    model = classifier.model.eval()
    with torch.no_grad():
        maps = model.forward_features(torch.from_numpy(inputs).permute(0, 3, 1, 2).float())  # type: ignore[operator]
        expected = model.forward_head(maps, pre_logits=True)  # type: ignore[operator]
    assert torch.from_numpy(found) == pytest.approx(torch.nn.functional.normalize(expected, dim=1), abs=1e-4)
    assert timm.is_model(name)


def test_different_scenes_are_picked_before_more_of_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1) for _ in range(4)]
    paths = []
    for index in range(16):
        noise = rng.integers(-6, 7, kinds[0].shape)
        image = np.clip(kinds[index // 4].astype(int) + noise, 0, 255).astype(np.uint8)
        paths.append(tmp_path / f"{index:02}.png")
        Image.fromarray(image).save(paths[-1])
    torch.manual_seed(0)
    features = image_features(create_classifier("test_resnet", 2, pretrained=False), paths)
    assert {index // 4 for index, _ in farthest_first(features, 4)} == {0, 1, 2, 3}
