"""Anchors that fit a data set: what they reach, and that nothing but the boxes decides."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from visionlora.errors import InputError
from visionlora.models.anchors import SCALES, Anchors, default_anchors, fit_anchors

LEVELS = (3, 4, 5, 6)


def boxes(number: int, size: float, ratio: float, spread: float = 0.1, seed: int = 0) -> Tensor:
    """Around a size (square root of the area) and a ratio (height / width), anywhere in 512 x 512."""
    generator = torch.Generator().manual_seed(seed)
    sizes = size * (spread * torch.randn(number, generator=generator)).exp()
    ratios = ratio * (spread * torch.randn(number, generator=generator)).exp()
    sides = torch.stack([sizes / ratios.sqrt(), sizes * ratios.sqrt()], dim=1)
    centres = sides / 2 + (512 - sides) * torch.rand(number, 2, generator=generator)
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=1)


def recall_over_the_whole_image(found: Tensor, levels: tuple[int, ...], anchors: Anchors) -> float:
    """By brute force, over all anchors that torchvision lays out."""
    image = ImageList(torch.zeros(1, 3, 512, 512), [(512, 512)])
    maps = [torch.zeros(1, 1, 512 >> level, 512 >> level) for level in levels]
    (laid_out,) = anchors.generator()(image, maps)
    return float((box_iou(found, laid_out).max(dim=1).values >= 0.5).float().mean())


CASES = [(12.0, 0.4), (25.0, 3.0), (60.0, 3.0), (150.0, 0.25), (300.0, 0.8)]


@pytest.mark.parametrize(("size", "ratio"), CASES)
def test_recall_is_that_of_all_anchors_in_the_image(size: float, ratio: float) -> None:
    found = boxes(150, size, ratio, spread=0.3)
    found = found[(found > 0).all(dim=1) & (found < 512).all(dim=1)]
    fitted = fit_anchors(found, LEVELS)
    assert fitted.recall_before == pytest.approx(recall_over_the_whole_image(found, LEVELS, default_anchors(LEVELS)))
    assert fitted.recall_after == pytest.approx(recall_over_the_whole_image(found, LEVELS, fitted.anchors))


@pytest.mark.parametrize(("size", "ratio"), CASES)
def test_fitting_meets_the_boxes(size: float, ratio: float) -> None:
    fitted = fit_anchors(boxes(200, size, ratio), LEVELS)
    assert fitted.iou_after > fitted.iou_before + 0.02
    assert fitted.recall_after >= fitted.recall_before
    assert fitted.recall_after > (0.4 if size < 20 else 0.9), "many of 12 pixels lie between the places of the grid"
    sizes = [size for level in fitted.anchors.sizes for size in level]
    assert min(abs(value / size - 1) for value in sizes) < 0.15


@pytest.mark.parametrize("scales", [(1.0,), SCALES])
def test_nothing_is_ever_worse_than_before(scales: tuple[float, ...]) -> None:
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        corners = 400 * torch.rand(60, 2, generator=generator)
        sides = 24 + 70 * torch.rand(60, 1, generator=generator) * (0.7 + 0.6 * torch.rand(60, 2, generator=generator))
        fitted = fit_anchors(torch.cat([corners, corners + sides], dim=1), LEVELS, scales)
        assert fitted.recall_after >= fitted.recall_before and fitted.iou_after >= fitted.iou_before


def test_a_level_keeps_the_sizes_that_it_can_see() -> None:
    fitted = fit_anchors(torch.cat([boxes(99, 45.0, 3.0, 0.01), boxes(99, 145.0, 0.3, 0.01)]), LEVELS).anchors
    defaults = default_anchors(LEVELS)
    assert fitted.sizes[1] == pytest.approx(defaults.sizes[1], abs=1e-3), "nothing is of these sizes: as they were"
    assert fitted.sizes[3] == pytest.approx(defaults.sizes[3], abs=1e-3)
    assert min(abs(size - 45) for size in fitted.sizes[0]) < 1
    assert min(abs(size - 145) for size in fitted.sizes[2]) < 3
    assert max(fitted.aspect_ratios[0]) == pytest.approx(3, rel=0.02)
    assert min(fitted.aspect_ratios[2]) == pytest.approx(0.3, rel=0.02)


def test_one_box_is_enough_and_moves_one_anchor() -> None:
    fitted = fit_anchors(torch.tensor([[102.0, 97, 122, 127]]), LEVELS)
    assert fitted.iou_after > max(fitted.iou_before, 0.8)
    assert fitted.anchors.sizes[1:] == tuple(
        pytest.approx(sizes, abs=1e-3) for sizes in default_anchors(LEVELS).sizes[1:]
    )


def test_the_order_of_the_boxes_does_not_matter() -> None:
    found = torch.cat([boxes(50, 30.0, 2.0), boxes(50, 100.0, 0.5)])
    first, again, turned = fit_anchors(found, LEVELS), fit_anchors(found, LEVELS), fit_anchors(found.flip(0), LEVELS)
    assert first == again
    for a, b in zip(first.anchors.sizes, turned.anchors.sizes, strict=True):
        assert a == pytest.approx(b, abs=2e-3)


def test_another_number_of_sizes_is_possible() -> None:
    fitted = fit_anchors(boxes(100, 60.0, 2.0), (2, 3, 4), scales=(1.0, 1.5)).anchors
    assert [len(sizes) for sizes in fitted.sizes] == [2, 2, 2]
    assert fitted.generator().num_anchors_per_location() == [6, 6, 6]


@pytest.mark.parametrize("bad", [torch.zeros(0, 4), torch.tensor([[0.0, 0, 5, 5], [3, 3, 3, 9]])])
def test_boxes_of_nothing_are_refused(bad: Tensor) -> None:
    with pytest.raises(InputError, match="x1 < x2"):
        fit_anchors(bad, LEVELS)


@pytest.mark.parametrize(("folder", "width"), [("surveillance_lot_960", 960), ("pets2009_s2l1", 768)])
def test_real_boxes_are_met(kit: Path, folder: str, width: int) -> None:
    (file,) = (kit / "data" / folder).glob("*.json")
    found = torch.tensor([entry["bbox"] for entry in json.loads(file.read_text())["annotations"]]) * 480 / width
    fitted = fit_anchors(torch.cat([found[:, :2], found[:, :2] + found[:, 2:]], dim=1), LEVELS)
    assert fitted.recall_after > max(fitted.recall_before, 0.97)
    assert fitted.iou_after > fitted.iou_before + 0.05
