"""Detections in tiles join to what is in the image."""

import numpy as np
import pytest
import torch

from helpers.coloured import extent, whole_mask
from visionlora.data.annotations.annotated import LabelledObject
from visionlora.data.annotations.masks import rasterise
from visionlora.data.detection.mapping import boxes_to_original, paste_masks
from visionlora.data.detection.tile_joining import join_tiles
from visionlora.data.detection.tiling import clip_object
from visionlora.data.windows import Window, windows

STILL = np.eye(2, 3)


def found_in_tiles(
    objects: list[LabelledObject], found: list[Window], masks: bool, generator: np.random.Generator, noise: float = 0
) -> list[dict[str, torch.Tensor]]:
    """A perfect detector's answer in every tile, or one that is off by up to ``noise`` pixels."""
    parts = []
    for window in found:
        width, height = window[2] - window[0], window[3] - window[1]
        seen = [part for thing in objects if (part := clip_object(thing, window))]
        boxes = np.array([part.box for part in seen]).reshape(-1, 4)
        boxes = boxes + generator.uniform(-noise, noise, boxes.shape) if noise else boxes
        boxes = boxes.clip(0, (width, height, width, height))
        part = {
            "boxes": boxes_to_original(torch.from_numpy(boxes), width, height, window),
            "labels": torch.tensor([one.label for one in seen], dtype=torch.int64),
            "scores": torch.from_numpy(generator.uniform(0.5, 1, len(seen))),
        }
        if masks:
            drawn = [rasterise(one.mask, STILL, width, height) for one in seen if one.mask]
            part["masks"] = torch.from_numpy(np.array(drawn, np.uint8).reshape(-1, height, width))
        parts.append(part)
    return parts


def scattered(generator: np.random.Generator, width: int, height: int, largest: int) -> list[LabelledObject]:
    """Objects of three classes, next to each other but at most touching."""
    objects: list[LabelledObject] = []
    taken = np.zeros((height, width), bool)
    for _ in range(150):
        w, h = generator.integers(8, largest, 2).tolist()
        x, y = int(generator.integers(0, width - w)), int(generator.integers(0, height - h))
        if taken[y : y + h, x : x + w].any():
            continue
        taken[y : y + h, x : x + w] = True
        pixels = np.zeros((height, width), np.uint8)
        pixels[y : y + h, x : x + w] = 1
        objects.append(LabelledObject(int(generator.integers(3)), (x, y, x + w, y + h), whole_mask(pixels)))
    return objects


@pytest.mark.parametrize("largest", [60, 120])  # of an overlap of 60: whole somewhere, or in pieces everywhere
def test_joined_truth_is_the_truth(largest: int) -> None:
    generator = np.random.default_rng(3)
    for _ in range(15):
        width, height = generator.integers(250, 600, 2).tolist()
        objects = scattered(generator, width, height, largest)
        found = windows(width, height, 200, 60)
        joined = join_tiles(found_in_tiles(objects, found, True, generator), found, width, height, limit=500)
        boxes = zip(joined["labels"].tolist(), joined["boxes"].tolist(), strict=True)
        assert sorted((label, *box) for label, box in boxes) == sorted((thing.label, *thing.box) for thing in objects)
        assert joined["scores"].tolist() == sorted(joined["scores"].tolist(), reverse=True)
        for box, mask in zip(joined["boxes"].int().tolist(), joined["masks"], strict=True):
            x1, y1, x2, y2 = box
            assert mask.shape == (height, width)
            assert mask.sum() == mask[y1:y2, x1:x2].sum() == (x2 - x1) * (y2 - y1)


def test_detections_that_are_off_by_a_pixel_or_two_are_joined_alike() -> None:
    generator = np.random.default_rng(4)
    for _ in range(15):
        width, height = generator.integers(250, 600, 2).tolist()
        objects = [thing for thing in scattered(generator, width, height, 110) if min(size(thing)) >= 16]
        found = windows(width, height, 200, 60)
        joined = join_tiles(found_in_tiles(objects, found, False, generator, 1.5), found, width, height, limit=500)
        assert len(joined["boxes"]) == len(objects)
        for thing in objects:
            same = joined["labels"] == thing.label
            distance = (joined["boxes"][same] - torch.tensor(thing.box)).abs().amax(dim=1)
            assert distance.min() <= 1.5
        assert "masks" not in joined


def size(thing: LabelledObject) -> tuple[float, float]:
    x1, y1, x2, y2 = thing.box
    return x2 - x1, y2 - y1


def detections(*rows: tuple[tuple[float, ...], int, float]) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([row[1] for row in rows], dtype=torch.int64),
        "scores": torch.tensor([row[2] for row in rows]),
    }


TWO: list[Window] = [(0, 0, 100, 100), (60, 0, 160, 100)]


def test_a_whole_detection_outdoes_a_better_scored_piece() -> None:
    left = detections(((70, 10, 100, 30), 1, 0.9))
    right = detections(((70, 10, 120, 30), 1, 0.6))
    joined = join_tiles([left, right], TWO, 160, 100)
    assert joined["boxes"].tolist() == [[70, 10, 120, 30]]
    assert joined["scores"].tolist() == pytest.approx([0.6])


def test_a_piece_without_a_partner_goes_only_if_something_larger_holds_it() -> None:
    sliver = detections(((94, 10, 100, 30), 1, 0.9))
    larger = detections(((70, 5, 120, 90), 1, 0.6))
    assert join_tiles([sliver, larger], TWO, 160, 100)["boxes"].tolist() == [[70, 5, 120, 90]]
    alone = detections(((120, 5, 150, 90), 1, 0.6))
    assert len(join_tiles([sliver, alone], TWO, 160, 100)["boxes"]) == 2
    other_class = detections(((70, 5, 120, 90), 2, 0.6))
    assert len(join_tiles([sliver, other_class], TWO, 160, 100)["boxes"]) == 2


def test_what_ends_at_the_images_own_edge_is_no_piece() -> None:
    """A small box at the image's border stays, though a larger one of its class holds it."""
    both = detections(((0, 10, 20, 20), 1, 0.9), ((0, 5, 60, 90), 1, 0.6))
    assert len(join_tiles([both, detections()], TWO, 160, 100)["boxes"]) == 2
    inner = detections(((62, 10, 80, 20), 1, 0.9), ((65, 5, 120, 90), 1, 0.6))
    assert len(join_tiles([detections(), inner], TWO, 160, 100)["boxes"]) == 1


def test_neighbours_in_one_tile_are_never_joined() -> None:
    left = detections(((65, 10, 100, 30), 0, 0.9), ((65, 31, 100, 50), 0, 0.8))
    right = detections(((65, 10, 130, 30), 0, 0.9), ((65, 31, 140, 50), 0, 0.8))
    assert join_tiles([left, right], TWO, 160, 100)["boxes"].tolist() == [[65, 10, 130, 30], [65, 31, 140, 50]]


def test_a_detection_has_one_partner_in_a_tile() -> None:
    """The second on the left resembles the right one too, but less than the first does."""
    left = detections(((65, 10, 100, 30), 0, 0.9), ((65, 20.4, 100, 40.4), 0, 0.8))
    right = detections(((65, 14, 130, 34), 0, 0.7))
    boxes = join_tiles([left, right], TWO, 160, 100)["boxes"]
    torch.testing.assert_close(boxes, torch.tensor([[65, 20.4, 100, 40.4], [65, 14, 130, 34]]))


def test_classes_are_never_joined() -> None:
    left, right = detections(((65, 10, 100, 30), 0, 0.9)), detections(((65, 10, 130, 30), 1, 0.8))
    assert join_tiles([left, right], TWO, 160, 100)["labels"].tolist() == [0, 1]


def test_the_masks_of_pieces_are_united() -> None:
    left, right = detections(((20, 10, 100, 30), 0, 0.9)), detections(((60, 10, 140, 30), 0, 0.8))
    left["masks"], right["masks"] = torch.zeros((1, 100, 100)), torch.zeros((1, 100, 100))
    left["masks"][0, 10:30, 20:90] = 1
    right["masks"][0, 10:30, 10:80] = 1
    joined = join_tiles([left, right], TWO, 160, 100)
    assert joined["boxes"].tolist() == [[20, 10, 140, 30]]
    assert extent(joined["masks"][0].numpy()) == [20, 10, 140, 30]
    assert joined["masks"].sum() == 20 * 120


def test_doubles_fall_to_suppression_and_the_best_are_kept() -> None:
    part = detections(((10, 10, 50, 50), 0, 0.5), ((11, 10, 50, 50), 0, 0.9), ((11, 10, 50, 50), 1, 0.7))
    joined = join_tiles([part, detections()], TWO, 160, 100)
    assert joined["labels"].tolist() == [0, 1]
    assert joined["scores"].tolist() == pytest.approx([0.9, 0.7])
    assert len(join_tiles([part, detections()], TWO, 160, 100, limit=1)["boxes"]) == 1


@pytest.mark.parametrize("masks", [True, False])
def test_nothing_found_is_nothing(masks: bool) -> None:
    nothing = detections()
    if masks:
        nothing["masks"] = torch.zeros((0, 100, 100))
    joined = join_tiles([nothing, nothing], TWO, 160, 100)
    assert joined["boxes"].shape == (0, 4)
    assert joined["labels"].shape == joined["scores"].shape == (0,)
    if masks:
        assert joined["masks"].shape == (0, 100, 160)


def test_masks_are_pasted_into_their_window() -> None:
    masks = torch.zeros((2, 10, 20))
    masks[0, 2:4, 5:9] = 0.9
    masks[1] = 0.4
    pasted = paste_masks(masks, (30, 40, 70, 60), 100, 80)
    assert pasted.dtype == torch.bool
    assert extent(pasted[0].numpy()) == [40, 44, 48, 48]
    assert pasted[0].sum() == 32
    assert not pasted[1].any()
