"""Labelled images: what every way of laying them out is read into."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from visionlora.data.faults import Fault
from visionlora.errors import InputError


@dataclass(frozen=True)
class LabelledImages:
    """Image files with the indices of their classes: exactly one each, or any number if ``multilabel``."""

    paths: list[Path]
    labels: list[tuple[int, ...]]
    classes: list[str]
    multilabel: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self) -> list[int]:
        """Images per class."""
        counts = [0] * len(self.classes)
        for label in self.labels:
            for index in label:
                counts[index] += 1
        return counts

    def subset(self, indices: Iterable[int]) -> "LabelledImages":
        """These images, in this order; the classes stay."""
        chosen = list(indices)
        return replace(self, paths=[self.paths[i] for i in chosen], labels=[self.labels[i] for i in chosen])

    def without(self, paths: Collection[Path]) -> "LabelledImages":
        """All images but these; the classes stay."""
        left_out = set(paths)
        return self.subset(i for i, path in enumerate(self.paths) if path not in left_out)


@dataclass(frozen=True)
class LabelReading:
    """Labelled images as they were read: those with which nothing is wrong, and all faults, in the order found."""

    data: LabelledImages
    faults: list[Fault]


def draw_shots(data: LabelledImages, shots: int, seed: int) -> LabelledImages:
    """So many images of each class, by (seed) alone, in their order; fewer shots are among more.

    Raises:
        InputError: images have several labels, or a class has fewer images.
    """
    if data.multilabel:
        raise InputError("data.shots counts images of each class, and here an image has several; leave it out")
    for name, count in zip(data.classes, data.counts(), strict=True):
        if count < shots:
            raise InputError(f"data.shots is {shots}, and class '{name}' has {count} images to train on; give fewer")
    generator = np.random.default_rng(seed)
    left, chosen = [shots] * len(data.classes), []
    for index in generator.permutation(len(data)).tolist():
        label = data.labels[index][0]
        if left[label]:
            left[label] -= 1
            chosen.append(index)
    return data.subset(sorted(chosen))


def split_train_val(data: LabelledImages, fraction: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Put about ``fraction`` of the images aside for validation, by (seed) alone.

    Drawn class by class: at least one image of each class that has two, and never the last one. Multi-label
    images are drawn from all together. Frames of one camera must not be split like this (data/README.md).

    Raises:
        InputError: ``fraction`` isn't between 0 and 1, or one of the two parts would be empty.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the fraction for validation is {fraction}; give a number between 0 and 1")
    generator = np.random.default_rng(seed)
    groups: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(data.labels):
        groups[0 if data.multilabel else label[0]].append(index)
    held_out: set[int] = set()
    for group in sorted(groups):
        shuffled = generator.permutation(groups[group]).tolist()
        wanted = max(1, round(fraction * len(shuffled)))
        held_out.update(shuffled[: min(wanted, len(shuffled) - 1)])
    if not held_out:
        raise InputError(f"{len(data)} images can't be split: no class has two; add images")
    return (
        data.subset(i for i in range(len(data)) if i not in held_out),
        data.subset(sorted(held_out)),
    )
