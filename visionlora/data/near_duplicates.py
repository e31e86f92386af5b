"""Pictures that are nearly the same: bursts of frames, and what two parts of a data set share."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

NEAR = 20
"""Bits out of 256 that may differ. Measured: the same photo saved again at JPEG quality 30 or half its size differs
in 17 or less (95 of 100); a fixed camera's frames of different days in 37 or more; unrelated photos in 39 or more."""

_SIDE = 16


def fingerprint(image: Image.Image) -> bytes:
    """256 bits: whether each of 16 x 16 places is brighter than its left neighbour (dHash).

    64 bits are too few for a fixed camera: frames of different days then come as near as 2 bits.
    """
    grey = image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(grey)
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes()


@dataclass(frozen=True)
class Twin:
    """Images `first` and `second` differ in `bits` of 256."""

    first: int
    second: int
    bits: int


def find_bursts(prints: list[bytes]) -> list[list[int]]:
    """Indices in groups of two and more, within which one comes to each other by steps of `NEAR` bits or less."""
    words = _words(prints)
    waiting = np.arange(len(prints))
    groups = []
    while len(waiting):
        frontier, waiting = [int(waiting[0])], waiting[1:]
        group: list[int] = []
        while frontier:
            current = frontier.pop()
            group.append(current)
            near = _bits(words[waiting], words[current]) <= NEAR
            frontier += waiting[near].tolist()
            waiting = waiting[~near]
        if len(group) > 1:
            groups.append(sorted(group))
    return groups


def find_twins(first: list[bytes], second: list[bytes]) -> list[Twin]:
    """For each image of `second` that has one within `NEAR` bits in `first`: the nearest of them."""
    if not first:
        return []
    words, twins = _words(first), []
    for index, other in enumerate(_words(second)):
        bits = _bits(words, other)
        nearest = int(bits.argmin())
        if bits[nearest] <= NEAR:
            twins.append(Twin(nearest, index, int(bits[nearest])))
    return twins


def _words(prints: list[bytes]) -> np.ndarray:
    """(N, 4) uint64."""
    return np.frombuffer(b"".join(prints), dtype=np.uint64).reshape(-1, _SIDE * _SIDE // 64)


def _bits(words: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, 4), (4,) -> (N,) number of bits that differ."""
    return np.bitwise_count(words ^ other).sum(axis=1)
