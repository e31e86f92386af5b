"""Near-duplicates are found without comparing all with all, and they are the ones that this would find."""

from collections.abc import Callable

import numpy as np
import pytest

from visionlora.data import near_duplicates
from visionlora.data.near_duplicates import NEAR, Kept, Twin, find_bursts, find_twins

Bits = np.ndarray
"""(N, 256) of 0 and 1."""


def unrelated(generator: np.random.Generator, count: int) -> Bits:
    return generator.integers(0, 2, (count, 256), dtype=np.uint8)


def scenes(generator: np.random.Generator, count: int) -> Bits:
    """Some tens of each scene, most of which are within reach of each other, and some just not."""
    centres = unrelated(generator, max(count // 30, 1))
    flips = generator.random((count, 256)) < generator.uniform(0, 0.08, (count, 1))
    return centres[generator.integers(0, len(centres), count)] ^ flips


def fixed_camera(generator: np.random.Generator, count: int) -> Bits:
    """Only some places ever change, those beside each other."""
    base = unrelated(generator, 1)
    bits = np.repeat(base, count, axis=0)
    bits[:, 40:100] = unrelated(generator, count)[:, 40:100]
    return bits


def drift(generator: np.random.Generator, count: int) -> Bits:
    """Each a few bits away from the one before it, in an order of its own."""
    bits = np.empty((count, 256), np.uint8)
    bits[0] = unrelated(generator, 1)[0]
    for i in range(1, count):
        bits[i] = bits[i - 1]
        bits[i, generator.choice(256, int(generator.integers(0, NEAR + 4)), replace=False)] ^= 1
    return generator.permutation(bits)


def copies(generator: np.random.Generator, count: int) -> Bits:
    """Of few pictures, and of nothing at all."""
    few = np.concatenate([unrelated(generator, 3), np.zeros((1, 256), np.uint8), np.ones((1, 256), np.uint8)])
    return few[generator.integers(0, len(few), count)]


def at_the_limit(generator: np.random.Generator, count: int) -> Bits:
    """Pairs that differ in exactly ``NEAR`` bits or one more, wherever these lie."""
    bits = unrelated(generator, count)
    for i in range(0, count - 1, 2):
        bits[i + 1] = bits[i]
        start = int(generator.integers(0, 256))
        places = generator.choice(256, NEAR + i // 2 % 2, replace=False)
        bits[i + 1, places if i % 4 else np.arange(start, start + len(places)) % 256] ^= 1
    return bits


KINDS = (unrelated, scenes, fixed_camera, drift, copies, at_the_limit)


def prints_of(bits: Bits) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(bits, axis=1)]


def distances(first: Bits, second: Bits) -> np.ndarray:
    """(N, M), each pair on its own."""
    return np.stack([(row != second).sum(axis=1) for row in first])


@pytest.mark.parametrize("straight", [False, True], ids=["by key", "all pairs"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_groups_are_those_of_all_pairs(
    kind: Callable[[np.random.Generator, int], Bits], seed: int, straight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_SHARE", 10**9 if straight else 1)
    monkeypatch.setattr(near_duplicates, "_LONG_RUN", (3, 512, 40)[seed])
    bits = kind(np.random.default_rng(seed), 240)
    near = distances(bits, bits) <= NEAR
    label = np.arange(len(bits))
    while True:  # each takes the least number of those that it is near to, until nothing changes
        least = np.where(near, label, len(bits)).min(axis=1)
        if (least == label).all():
            break
        label = least
    groups = [np.flatnonzero(label == number).tolist() for number in np.unique(label)]
    assert sorted(find_bursts(prints_of(bits))) == sorted(group for group in groups if len(group) > 1)


@pytest.mark.parametrize("straight", [False, True], ids=["by key", "all pairs"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_twins_are_those_of_all_pairs(
    kind: Callable[[np.random.Generator, int], Bits], seed: int, straight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_SHARE", 10**9 if straight else 1)
    monkeypatch.setattr(near_duplicates, "_CHUNK", (7, 1 << 20, 1000)[seed])
    bits = kind(np.random.default_rng(seed), 240)
    first, second = bits[:100], bits[100:]
    apart = distances(first, second)
    expected = [
        Twin(int(column.argmin()), index, int(column.min()))
        for index, column in enumerate(apart.T)
        if column.min() <= NEAR
    ]
    assert find_twins(prints_of(first), prints_of(second)) == expected


def test_the_kinds_have_pairs_to_find_and_pairs_to_leave() -> None:
    for kind in KINDS:
        bits = kind(np.random.default_rng(0), 240)
        near = distances(bits, bits) <= NEAR
        assert not near.all()
        assert near.sum() > len(bits) or kind in (unrelated, fixed_camera), kind.__name__


def test_few_of_many_pictures_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unrelated pictures: four times as many are compared some four times as often, not sixteen times."""
    compared = []
    counted = near_duplicates._bits

    def count(words: np.ndarray, other: np.ndarray) -> np.ndarray:
        compared[-1] += len(words)
        return counted(words, other)

    monkeypatch.setattr(near_duplicates, "_bits", count)
    for number in (3000, 12000):
        compared.append(0)
        prints = prints_of(unrelated(np.random.default_rng(0), number))
        find_bursts(prints)
        find_twins(prints[::2], prints[1::2])
    assert compared[1] < 12000


@pytest.mark.parametrize("near", [-1, 0, 8, NEAR])
def test_what_comes_one_by_one_is_kept_unless_one_before_is_near(near: int) -> None:
    """Against all pairs, over more than are made room for at first."""
    bits = drift(np.random.default_rng(0), 300)
    kept, chosen = Kept(near), []
    for index, row in enumerate(bits):
        print_ = np.packbits(row).tobytes()
        if kept.is_new(print_):
            kept.add(print_)
            chosen.append(index)
    expected: list[int] = []
    for index, row in enumerate(bits):
        if all(int((row ^ bits[other]).sum()) > near for other in expected):
            expected.append(index)
    assert chosen == expected
    assert len(chosen) > 64
