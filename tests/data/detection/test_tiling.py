"""Tiles show the image, and every small object whole."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.coloured import draw, extent, labels_of, overlap
from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject, Polygons
from visionlora.data.annotations.masks import rasterise
from visionlora.data.detection.dataset import DetectionDataset
from visionlora.data.detection.tiling import Tile, clip_object, cut
from visionlora.data.detection.transforms import DetectionEvalTransform, DetectionTrainTransform
from visionlora.data.geometry import MIN_VISIBLE
from visionlora.data.windows import windows
from visionlora.errors import InputError

STILL = np.eye(2, 3)


def test_windows_cover_the_image_and_overlap() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        width, height, side = generator.integers(1, 500, 3).tolist()
        overlap_ = int(generator.integers(0, side))
        found = windows(width, height, side, overlap_)
        assert len(set(found)) == len(found)
        seen = np.zeros((height, width), bool)
        for x1, y1, x2, y2 in found:
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
            assert (x2 - x1, y2 - y1) == (min(side, width), min(side, height))
            seen[y1:y2, x1:x2] = True
        assert seen.all()
        columns = sorted({(x1, x2) for x1, _, x2, _ in found})
        for (_, end), (start, _) in pairwise(columns):
            assert end - start >= overlap_
        one_side = 1 if width <= side else -(-(width - overlap_) // (side - overlap_))
        assert len(columns) == one_side  # no more than needed


def test_an_object_no_larger_than_the_overlap_is_whole_in_a_tile() -> None:
    generator = np.random.default_rng(1)
    for _ in range(100):
        width, height, side = generator.integers(40, 600, 3).tolist()
        overlap_ = int(generator.integers(1, side))
        found = np.array(windows(width, height, side, overlap_))
        for _ in range(20):
            w, h = generator.uniform(0.01, min(overlap_, width)), generator.uniform(0.01, min(overlap_, height))
            x, y = generator.uniform(0, width - w), generator.uniform(0, height - h)
            inside = (found[:, :2] <= (x, y)).all(axis=1) & (found[:, 2:] >= (x + w, y + h)).all(axis=1)
            assert inside.any()


@pytest.mark.parametrize(("side", "overlap_"), [(10, 10), (10, -1), (0, 0)])
def test_overlaps_that_cannot_be_are_refused(side: int, overlap_: int) -> None:
    with pytest.raises(InputError, match=f"tiles of {side} px can't overlap by {overlap_} px"):
        windows(100, 100, side, overlap_)


@pytest.mark.parametrize("mask", ["polygon", "run lengths", ""])
def test_a_tiles_objects_are_what_shows_of_them(mask: str) -> None:
    generator = np.random.default_rng(2)
    shown = hidden = 0
    for _ in range(25):
        picture = draw(generator, 480, 300, "ellipse" if mask else "rectangle", mask)
        whole = labels_of(picture.image)
        for window in windows(480, 300, 130, 40):
            x1, y1, x2, y2 = window
            part = whole[y1:y2, x1:x2]
            for thing in picture.objects:
                found = clip_object(thing, window)
                share = (part == thing.label).sum() / (whole == thing.label).sum()
                if found is None:
                    assert share < MIN_VISIBLE + 0.02
                    hidden += share > 0
                    continue
                shown += 1
                assert found.label == thing.label
                assert share > MIN_VISIBLE - 0.02
                assert np.abs(np.array(found.box) - extent(part == thing.label)).max() <= 1.01
                if mask:
                    drawn = rasterise(found.mask, STILL, x2 - x1, y2 - y1)
                    assert overlap(drawn, part == thing.label) > (0.999 if mask == "run lengths" else 0.93)
    assert shown > 300
    assert hidden > 50


def test_crowds_are_in_every_tile_where_they_show() -> None:
    crowd = LabelledObject(0, (0, 0, 100, 100), crowd=True)
    plain = LabelledObject(0, (0, 0, 100, 100))
    assert clip_object(plain, (95, 95, 200, 200)) is None
    assert clip_object(crowd, (95, 95, 200, 200)) == LabelledObject(0, (0, 0, 5, 5), crowd=True)
    assert clip_object(crowd, (100, 0, 200, 200)) is None
    corner = Polygons(((0, 0, 30, 0, 0, 30),))
    assert clip_object(LabelledObject(0, (0, 0, 30, 30), corner, crowd=True), (25, 25, 60, 60)) is None


@pytest.fixture
def data(tmp_path: Path) -> AnnotatedImages:
    images = []
    for i, (width, height) in enumerate([(480, 300), (250, 410), (90, 100)]):
        drawn = draw(np.random.default_rng(i), width, height, "rectangle", "polygon") if i < 2 else None
        pixels = drawn.image if drawn else np.zeros((height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        objects = tuple(drawn.objects) if drawn else ()
        images.append(AnnotatedImage(tmp_path / f"{i}.png", width, height, objects, {"day": f"day {i}"}))
    return AnnotatedImages(images, list("abcdef"))


def test_tiles_are_images_of_a_data_set(data: AnnotatedImages) -> None:
    tiles = cut(data, side=140, overlap=40)
    assert tiles.classes == data.classes
    assert tiles.has_masks
    dataset = DetectionDataset(tiles, DetectionEvalTransform(140, masks=True), seed=0)
    assert [tile.image_id for tile in tiles.images] == [0] * 5 * 3 + [1] * 3 * 4 + [2]
    for index, tile in enumerate(tiles.images):
        sample = dataset[(0, index)]
        file = np.asarray(Image.open(data.images[tile.image_id].path))
        x1, y1, x2, y2 = sample["window"].tolist()
        assert tile.fields == data.images[tile.image_id].fields
        assert sample["original_size"].tolist() == list(file.shape[:2])
        assert sample["target"]["image_id"] == tile.image_id
        if tile.image_id < 2:
            assert sample["image"].shape == (3, 140, 140)
            assert np.array_equal((sample["image"] * 255).round().permute(1, 2, 0), file[y1:y2, x1:x2])
    last = dataset[(0, len(dataset) - 1)]
    assert last["image"].shape == (3, 140, 126)  # a smaller image is its own tile
    assert last["window"].tolist() == [0, 0, 90, 100]


def test_empty_tiles_can_be_left_out(data: AnnotatedImages) -> None:
    every = cut(data, 140, 40).images
    assert cut(data, 140, 40, empty=False).images == [tile for tile in every if tile.objects]
    assert any(not tile.objects for tile in every)
    with pytest.raises(InputError, match="no tile of 50 px has an object"):
        cut(data.subset([2]), 50, 10, empty=False)


def test_tiles_are_augmented_without_what_lies_beyond_them(data: AnnotatedImages) -> None:
    """Zooming out shows grey beside the tile; the rest of a cut object isn't there."""
    tiles = cut(data, 140, 40, empty=False)
    dataset = DetectionDataset(tiles, DetectionTrainTransform(140, "strong", masks=True), seed=0)
    boxed = 0
    for epoch in range(8):
        for index in range(len(tiles)):
            target = dataset[(epoch, index)]["target"]
            for box, mask in zip(target["boxes"], target["masks"], strict=True):
                boxed += 1
                assert np.abs(box.numpy() - extent(mask.numpy())).max() <= 1.01
    assert boxed > 100


def test_a_tile_equals_the_part_of_the_image() -> None:
    image = AnnotatedImage(Path("a.png"), 300, 200, (LabelledObject(2, (150.5, 20, 190, 60)),), {"camera": 3})
    tiles = cut(AnnotatedImages([image], ["a", "b", "c"]), 200, 100).images
    assert tiles == [
        Tile(image.path, 200, 200, image.objects, {"camera": 3}, (0, 0, 200, 200), (200, 300), 0),
        Tile(
            image.path,
            200,
            200,
            (LabelledObject(2, (50.5, 20, 90, 60)),),
            {"camera": 3},
            (100, 0, 300, 200),
            (200, 300),
            0,
        ),
    ]
