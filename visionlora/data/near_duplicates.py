"""Pictures that are nearly the same: bursts of frames, and what two parts of a data set share."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from PIL import Image

NEAR = 20
"""Bits out of 256 that may differ. Measured: the same photo saved again at JPEG quality 30 or half its size differs
in 17 or less (95 of 100); a fixed camera's frames of different days in 37 or more; unrelated photos in 39 or more."""

_SIDE = 16
_BITS = _SIDE * _SIDE

_STAGES = (4, 9, NEAR)
"""What is nearest is looked for first: few keys find it, and a burst of a thousand frames is one by then."""

_LONG_RUN = 512
"""From here on, to go through the chain costs less than to compare all pairs."""

_SHARE = 8
"""Of all pairs, one in so many is looked up before it is quicker to compare all, in order."""

_CHUNK = 1 << 20
"""Pairs compared at once."""


def fingerprint(image: Image.Image) -> bytes:
    """256 bits: whether each of 16 x 16 places is brighter than its left neighbour (dHash).

    64 bits are too few for a fixed camera: frames of different days then come as near as 2 bits.
    """
    grey = image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(grey)
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes()


@dataclass(frozen=True)
class Twin:
    """Images ``first`` and ``second`` differ in ``bits`` of 256."""

    first: int
    second: int
    bits: int


class Kept:
    """Pictures that come one after the other, and are kept where none before is as near as some number of bits.

    It holds 32 bytes of each; with -1 bits none, for then all are kept.
    """

    def __init__(self, near: int) -> None:
        self._near = near
        self._words = np.empty((0, _BITS // 64), np.uint64)
        self._count = 0

    def is_new(self, fingerprint: bytes) -> bool:
        """Whether each picture that was added differs in more than ``near`` bits."""
        known = self._words[: self._count]
        return self._near < 0 or not self._count or bool((_bits(known, _words([fingerprint])[0]) > self._near).all())

    def add(self, fingerprint: bytes) -> None:
        if self._near < 0:
            return
        if self._count == len(self._words):
            more = np.empty((max(64, self._count), _BITS // 64), np.uint64)
            self._words = np.concatenate([self._words, more])
        self._words[self._count] = _words([fingerprint])[0]
        self._count += 1


def find_bursts(prints: list[bytes]) -> list[list[int]]:
    """Indices in groups of two and more, within which one comes to each other by steps of ``NEAR`` bits or less.

    Only those are compared that share a key (see ``_keys``), unless many do so by chance.
    """
    if not prints:
        return []
    words, inverse = np.unique(_words(prints), axis=0, return_inverse=True)
    links = _Links(words)
    for radius in _STAGES:
        links.join(radius)
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(links.labels()[inverse.ravel()].tolist()):
        groups.setdefault(label, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def find_twins(first: list[bytes], second: list[bytes]) -> list[Twin]:
    """For each image of ``second`` that has one within ``NEAR`` bits in ``first``: the nearest of them.

    Only those are compared that share a key (see ``_keys``), unless many do so by chance.
    """
    if not first or not second:
        return []
    ours, places = np.unique(_words(first), axis=0, return_index=True)
    ours, places = ours[np.argsort(places)], np.sort(places)  # of equally near ones, the first
    theirs, inverse = np.unique(_words(second), axis=0, return_inverse=True)
    nearest: dict[int, tuple[int, int]] = {}
    waiting = np.arange(len(theirs))
    for radius in _STAGES:
        found = _nearest(ours, theirs[waiting], radius)
        nearest |= {int(waiting[at]): (int(places[index]), bits) for at, index, bits in found}
        waiting = np.delete(waiting, [at for at, _, _ in found])
    twins = [(nearest.get(at), index) for index, at in enumerate(inverse.ravel().tolist())]
    return [Twin(found[0], index, found[1]) for found, index in twins if found is not None]


def _nearest(first: np.ndarray, second: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    """Of each of (M, 4) that has one within ``radius`` bits in (N, 4): its index, that of the nearest, and the bits."""
    if not len(second):
        return []
    # Bits and index in one number, of which the least is sought.
    limit = (radius + 1) * len(first)
    best = np.full(len(second), limit)
    allowed = best.size * len(first) // _SHARE
    for keys in _keys(np.concatenate([first, second]), radius):
        order = np.argsort(keys[: len(first)])
        ours, theirs = keys[order], keys[len(first) :]
        low = np.searchsorted(ours, theirs, "left")
        counts = np.searchsorted(ours, theirs, "right") - low
        allowed -= int(counts.sum())
        if allowed < 0:
            best = np.array([(_bits(first, word) * len(first) + np.arange(len(first))).min() for word in second])
            break
        ends = counts.cumsum()
        for start in range(0, int(ends[-1]), _CHUNK):
            pairs = np.arange(start, min(start + _CHUNK, int(ends[-1])))
            at = np.searchsorted(ends, pairs, "right")
            index = order[low[at] + pairs - (ends - counts)[at]]
            np.minimum.at(best, at, _bits(first[index], second[at]) * len(first) + index)
    return [
        (at, int(best[at]) % len(first), int(best[at]) // len(first)) for at in np.flatnonzero(best < limit).tolist()
    ]


class _Links:
    """Pictures that are linked step by step: each points to another of its group, and one to itself."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = words  # (N, 4), all different
        self._parents = np.arange(len(words))

    def labels(self) -> np.ndarray:
        """(N,) the same number for all of a group."""
        while (self._parents[self._parents] != self._parents).any():
            self._parents = self._parents[self._parents]
        return self._parents

    def join(self, radius: int) -> None:
        """Link all that differ in ``radius`` bits or less, and some that differ in ``NEAR`` or less."""
        count = len(self._words)
        allowed = count * count // _SHARE
        for keys in _keys(self._words, radius):
            allowed -= self._join_runs(keys)
            if allowed < 0:
                self._join_chain(np.arange(count))
                return

    def _join_runs(self, keys: np.ndarray) -> int:
        """Link what has the same key; returns how many pairs were compared."""
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] + np.uint64(1)))
        lengths = np.diff(starts, append=len(order))
        # A run of one group has nothing to link.
        labels = self.labels()[order]
        mixed = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
        short = mixed & (lengths < _LONG_RUN)
        compared = 0
        for start, length in zip(starts[mixed & ~short].tolist(), lengths[mixed & ~short].tolist(), strict=True):
            compared += self._join_chain(order[start : start + length])
        ends = np.repeat(np.where(short, starts + lengths, 0), lengths)  # for each place the end of its run
        places = np.arange(len(order))
        for distance in range(1, int(lengths[short].max(initial=1))):
            places = places[places + distance < ends[places]]
            one, other = order[places], order[places + distance]
            apart = self._parents[one] != self._parents[other]
            one, other = one[apart], other[apart]
            near = _bits(self._words[one], self._words[other]) <= NEAR
            for a, b in zip(one[near].tolist(), other[near].tolist(), strict=True):
                self._link(a, b)
            compared += len(one)
        return compared

    def _join_chain(self, members: np.ndarray) -> int:
        """Link all of these that are near, each group in turn; returns how many pairs were compared."""
        labels = self.labels()[members]
        order = np.argsort(labels, kind="stable")
        members, labels = members[order], labels[order]
        words, compared = self._words[members], 0
        while len(members):
            size = int(np.searchsorted(labels, labels[0], "right"))
            frontier = list(zip(members[:size].tolist(), words[:size], strict=True))
            members, labels, words = members[size:], labels[size:], words[size:]
            while frontier and len(members):
                current, word = frontier.pop()
                compared += len(members)
                near = _bits(words, word) <= NEAR
                if near.any():
                    reached = np.isin(labels, labels[near])
                    for label in np.unique(labels[reached]).tolist():
                        self._link(current, label)
                    frontier += zip(members[reached].tolist(), words[reached], strict=True)
                    members, labels, words = members[~reached], labels[~reached], words[~reached]
        return compared

    def _link(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        self._parents[max(one, other)] = min(one, other)

    def _root(self, index: int) -> int:
        while (parent := int(self._parents[index])) != index:
            index = parent
        return index


def _keys(words: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """(N,) uint64 again and again; who differs in ``radius`` bits or less has at least one of these keys in common.

    The pigeonhole principle: of radius + 1 bands of bits one is equal, of radius + 2 bands two are. The bits that tell
    most apart are dealt out, so that each band has some: much of what a fixed camera sees is always the same.
    """
    bits = np.unpackbits(words.view(np.uint8).reshape(len(words), -1), axis=1)  # (N, 256)
    share = bits.mean(axis=0)
    bits = bits[:, np.argsort(np.abs(share - 0.5), kind="stable")]
    alone = _BITS // (radius + 1) >= 24  # shorter keys are shared by chance
    bands = [_number(bits[:, place :: radius + 2 - alone]) for place in range(radius + 2 - alone)]
    if alone:
        yield from bands
        return
    for one, other in combinations(bands, 2):
        yield one << np.uint64(32) | other


def _number(bits: np.ndarray) -> np.ndarray:
    """(N, up to 64) of 0 and 1 -> (N,) uint64."""
    padded = np.zeros((len(bits), 64), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").ravel()


def _words(prints: list[bytes]) -> np.ndarray:
    """(N, 4) uint64."""
    return np.frombuffer(b"".join(prints), dtype=np.uint64).reshape(-1, _BITS // 64)


def _bits(words: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, 4), (4,) or (N, 4) -> (N,) number of bits that differ."""
    counts = np.bitwise_count(words ^ other).T.astype(np.int64)
    total: np.ndarray = counts[0] + counts[1] + counts[2] + counts[3]  # quicker than a sum over four
    return total
