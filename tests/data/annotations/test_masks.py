"""Masks against pycocotools and against plain pixels."""

import numpy as np
import pytest
from pycocotools import mask as oracle

from helpers.coloured import whole_mask
from visionlora.data.annotations.annotated import Polygons, RunLengths
from visionlora.data.annotations.masks import area_through, box_of, decode, encode, patch_through, rasterise

STILL = np.eye(2, 3)


def blobs(generator: np.random.Generator) -> np.ndarray:
    """Noise, rectangles, stripes or a single pixel, (H, W) uint8; never empty."""
    height, width = generator.integers(1, 60, 2)
    kind = generator.integers(4)
    pixels = np.zeros((height, width), np.uint8)
    if kind == 0:
        pixels[:] = generator.random((height, width)) < generator.random()
    elif kind == 1:
        top, left = generator.integers(height), generator.integers(width)
        pixels[top : top + generator.integers(1, 60), left : left + generator.integers(1, 60)] = 1
    elif kind == 2:
        pixels[:, :: generator.integers(1, 5)] = 1
    pixels[generator.integers(height), generator.integers(width)] = 1
    return pixels


def polygons(generator: np.random.Generator, width: int, height: int) -> Polygons:
    rings = []
    for _ in range(generator.integers(1, 4)):
        points = generator.uniform(-5, 5, (generator.integers(3, 9), 2)) + (width, height) * generator.random(2)
        rings.append(tuple((points * generator.uniform(0.5, 1.5)).ravel().tolist()))
    return Polygons(tuple(rings))


def test_run_lengths_are_read_and_written_as_pycocotools_does() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        pixels = blobs(generator)
        mask = whole_mask(pixels)
        assert mask.counts == oracle.encode(np.asfortranarray(pixels))["counts"]
        part, x, y = decode(mask)
        left, top, right, bottom = box_of(pixels)
        assert (x, y, part.shape) == (left, top, (bottom - top, right - left))
        assert np.array_equal(part, pixels[top:bottom, left:right])
        assert np.array_equal(rasterise(mask, STILL, pixels.shape[1], pixels.shape[0]), pixels)
        assert area_through(mask, STILL) == pixels.sum()


def test_a_patch_is_written_as_the_whole_image_is() -> None:
    generator = np.random.default_rng(5)
    for _ in range(300):
        pixels = blobs(generator) * generator.integers(0, 5) > 0
        (height, width), (x, y), (right, below) = pixels.shape, *generator.integers(0, 3, (2, 2)).tolist()
        whole = np.pad(pixels.astype(np.uint8), ((y, below), (x, right)))
        mask = encode((pixels, x, y), width + x + right, height + y + below)
        assert mask == RunLengths(*whole.shape, oracle.encode(np.asfortranarray(whole))["counts"])


def test_a_patch_is_cut_from_what_is_seen() -> None:
    generator = np.random.default_rng(6)
    small = 0
    for _ in range(200):
        pixels = blobs(generator)
        height, width = pixels.shape
        matrix = generator.normal(size=(2, 3)) * (1, 1, 10)
        for mask in (whole_mask(pixels), polygons(generator, width, height)):
            part, x, y = patch_through(mask, matrix, 50, 40)
            assert 0 <= x <= 50 - part.shape[1]
            assert 0 <= y <= 40 - part.shape[0]
            margin = matrix.copy()
            margin[:, 2] += 100
            wide = rasterise(mask, margin, 250, 240)[100:140, 100:150]
            assert np.array_equal(rasterise(mask, matrix, 50, 40), wide)
            small += part.size < 50 * 40 / 2
    assert small > 100


def test_an_empty_mask_stays_empty() -> None:
    mask = whole_mask(np.zeros((5, 7), np.uint8))
    assert decode(mask)[0].size == 0
    assert not rasterise(mask, STILL, 9, 4).any()


def test_a_speck_in_a_huge_image_is_laid_out_alone() -> None:
    side, at = 60_000, 43_210  # 3.6 gigapixels, the most that the code's 32 bits hold
    runs = [at * side + 7, 2, side - 2, 3]
    code = oracle.frPyObjects({"size": [side, side], "counts": [*runs, side**2 - sum(runs)]}, side, side)
    part, x, y = decode(RunLengths(side, side, code["counts"]))
    assert (x, y) == (at, 7)
    assert part.tolist() == [[1, 1], [1, 1], [0, 1]]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_polygons_are_drawn_as_pycocotools_does() -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        width, height = generator.integers(5, 80, 2).tolist()
        # inside the image: beyond its left and upper edge, pycocotools draws a pixel more or less
        rings = (
            np.reshape(ring, (-1, 2)).clip(0, (width, height)) for ring in polygons(generator, width, height).rings
        )
        mask = Polygons(tuple(tuple(ring.ravel().tolist()) for ring in rings))
        theirs = oracle.decode(oracle.merge(oracle.frPyObjects([list(ring) for ring in mask.rings], height, width)))
        assert np.array_equal(rasterise(mask, STILL, width, height), theirs)


def test_polygons_move_as_points() -> None:
    generator = np.random.default_rng(2)
    for _ in range(100):
        mask = polygons(generator, 40, 30)
        matrix = generator.normal(size=(2, 3)) * (1, 1, 20)
        moved = Polygons(
            tuple(
                tuple((matrix @ [[*ring[::2]], [*ring[1::2]], [1] * (len(ring) // 2)]).T.ravel()) for ring in mask.rings
            )
        )
        assert np.array_equal(rasterise(mask, matrix, 50, 60), rasterise(moved, STILL, 50, 60))


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_run_lengths_move_by_whole_pixels(scale: int) -> None:
    generator = np.random.default_rng(3)
    for _ in range(50):
        pixels = blobs(generator)
        height, width = pixels.shape
        x, y = generator.integers(-10, 10, 2).tolist()
        grown = np.pad(pixels.repeat(scale, 0).repeat(scale, 1), 20)
        expected = grown[20 - y : 20 - y + scale * height, 20 - x : 20 - x + scale * width]
        matrix = np.array([[scale, 0, x], [0, scale, y]], np.float64)
        assert np.array_equal(rasterise(whole_mask(pixels), matrix, scale * width, scale * height), expected)
        mirror = np.array([[-1, 0, width], [0, 1, 0]], np.float64)
        assert np.array_equal(rasterise(whole_mask(pixels), mirror, width, height), pixels[:, ::-1])


def test_the_area_through_a_map_counts_what_falls_outside() -> None:
    mask = Polygons(
        ((10.0, 10.0, 50.0, 10.0, 50.0, 30.0, 10.0, 30.0), (20.0, 15.0, 60.0, 15.0, 60.0, 20.0, 20.0, 20.0))
    )
    whole = 40 * 20 + 10 * 5  # a union, not a sum
    outside = np.array([[0.5, 0, -1000], [0, 0.5, 3]])
    assert area_through(mask, outside) == pytest.approx(whole / 4, rel=0.03)
    pixels = rasterise(mask, STILL, 80, 60)
    assert pixels.sum() == whole
    assert area_through(whole_mask(pixels), outside) == pytest.approx(whole / 4)
