"""Polygons and run lengths against pycocotools, and near-duplicates against all pairs."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as oracle

from visionlora.data.annotations import polygons, run_lengths
from visionlora.data.annotations.annotated import Polygons
from visionlora.data.faults import Spot
from visionlora.data.near_duplicates import NEAR, find_bursts, find_twins, fingerprint

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def runs_of(pixels: np.ndarray) -> list[int]:
    flat = pixels.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return [0, *counts] if flat[0] else counts


@pytest.mark.parametrize("seed", range(30))
def test_run_lengths_of_any_kind_become_the_same_code(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(1, 40, 2))
    pixels = (generator.random((height, width)) < generator.uniform(0.05, 0.95)).astype(np.uint8)
    pixels[generator.integers(height), generator.integers(width)] = 1
    packed = oracle.encode(np.asfortranarray(pixels))["counts"]
    counts = runs_of(pixels)
    split = int(generator.integers(len(counts)))
    with_empty_runs = [*counts[:split], 0, 0, *counts[split:]]
    found = []
    for given in (packed.decode(), counts, with_empty_runs):
        spot = Spot(Path("a"), "", [])
        mask = run_lengths.check_run_lengths({"size": [height, width], "counts": given}, width, height, spot)
        assert mask is not None and spot.found == []
        found.append(mask)
    assert [mask.counts for mask in found] == [packed] * 3
    ys, xs = np.nonzero(pixels)
    assert run_lengths.extent(found[0]) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert run_lengths.area(found[0]) == pixels.sum()


@pytest.mark.parametrize("seed", range(30))
def test_a_clipped_polygon_covers_what_the_polygon_covers_of_the_image(seed: int) -> None:
    """Drawn on a larger canvas and cut, or clipped and drawn: the same but for pixels on the outline."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(-30, 90, (int(generator.integers(3, 8)), 2))
    angles = np.arctan2(*(corners - corners.mean(axis=0)).T)
    ring = tuple(corners[np.argsort(angles)].ravel().tolist())  # star-shaped: concave, but not crossing itself
    width, height, margin = 60, 40, 40
    shifted = [value + margin for value in ring]
    whole = oracle.decode(oracle.frPyObjects([shifted], height + 2 * margin, width + 2 * margin))[:, :, 0]
    expected = whole[margin : margin + height, margin : margin + width]
    clipped = polygons.clip_ring(ring, width, height)
    drawn = oracle.decode(oracle.frPyObjects([list(clipped)], height, width))[:, :, 0] if clipped else 0 * expected
    assert np.abs(drawn.astype(int) - expected).sum() <= 60  # of 2400; an outline of 200 pixels
    if clipped:
        assert min(clipped) >= 0 and max(clipped[::2]) <= width and max(clipped[1::2]) <= height
        assert abs(polygons.area(Polygons((clipped,))) - expected.sum()) <= 60


def test_a_polygon_inside_is_not_changed() -> None:
    ring = (0.0, 0.0, 60.0, 0.0, 60.0, 40.0)
    assert polygons.clip_ring(ring, 60, 40) == ring
    assert polygons.area(Polygons((ring,))) == 1200
    assert polygons.extent(Polygons((ring, (1.0, 1.0, 2.0, 1.0, 2.0, 2.0)))) == (0, 0, 60, 40)
    assert polygons.clip_ring((-9.0, 0.0, -1.0, 0.0, -1.0, 9.0), 60, 40) == ()


def print_with(*bits: int) -> bytes:
    """256 bits, these set."""
    values = np.zeros(256, np.uint8)
    values[list(bits)] = 1
    return np.packbits(values).tobytes()


def test_bursts_are_chains_of_near_pictures() -> None:
    chain = [print_with(*range(count)) for count in (0, NEAR, 2 * NEAR, 3 * NEAR)]
    far = print_with(*range(100, 200))
    beyond = print_with(*range(100, 201 + NEAR))
    assert find_bursts([chain[0], far, chain[3], beyond, chain[1], chain[2]]) == [[0, 2, 4, 5]]
    assert find_bursts([far, chain[0], far]) == [[0, 2]]
    assert find_bursts([]) == []


def test_twins_are_the_nearest_of_the_other_part() -> None:
    first = [print_with(*range(100, 200)), print_with(0, 1), print_with(0)]
    second = [print_with(*range(NEAR + 1)), print_with(*range(NEAR + 2)), print_with(*range(NEAR + 3))]
    found = [(twin.first, twin.second, twin.bits) for twin in find_twins(first, second)]
    assert found == [(1, 0, NEAR - 1), (1, 1, NEAR)]
    assert find_twins([], second) == find_twins(first, []) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_search_agrees_with_all_pairs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    centres = generator.integers(0, 2, (8, 256))
    bits = np.stack([centres[n % 8] ^ (generator.random(256) < 0.03) for n in range(60)])
    prints = [np.packbits(row).tobytes() for row in bits]
    near = (bits[:, None] != bits[None]).sum(axis=2) <= NEAR
    linked = near.copy()
    for _ in range(6):
        linked = (linked.astype(int) @ linked) > 0
    groups = {tuple(np.flatnonzero(row).tolist()) for row in linked}
    assert {tuple(group) for group in find_bursts(prints)} == {group for group in groups if len(group) > 1}
    twins = find_twins(prints[:30], prints[30:])
    assert [twin.second for twin in twins] == np.flatnonzero(near[:30, 30:].any(axis=0)).tolist()


def test_a_photo_saved_again_is_near_and_another_is_not() -> None:
    def photo(seed: int) -> Image.Image:
        small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)

    def bits(a: Image.Image, b: Image.Image) -> int:
        return (int.from_bytes(fingerprint(a)) ^ int.from_bytes(fingerprint(b))).bit_count()

    file = io.BytesIO()
    photo(0).resize((160, 120)).save(file, "JPEG", quality=50)
    assert bits(photo(0), Image.open(file)) <= NEAR
    assert bits(photo(0), photo(1)) > 3 * NEAR
    assert len(fingerprint(photo(0))) == 32


def test_fingerprints_of_the_kit_tell_days_apart(kit: Path) -> None:
    """A fixed camera: frames of one burst are near, those of different days are not, or splits by day would leak."""
    from visionlora.data.images import examine_images

    paths = sorted((kit / "data" / "surveillance_lot_960" / "images").iterdir())[::4]
    days = [path.stem.split("_")[3] for path in paths]
    prints = [facts.fingerprint for facts in examine_images(paths)]
    for group in find_bursts(prints):
        assert len({days[index] for index in group}) == 1
    assert find_bursts(prints)
