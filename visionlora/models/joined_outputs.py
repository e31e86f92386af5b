"""Outputs of a base and of models with other classes, as those of one model with the classes of all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou


@dataclass(frozen=True)
class Likeness:
    """How much what a base sees in an image is what it sees in images of new classes: the mean of the Bhattacharyya
    coefficients of its probabilities p for the image and q for each of those, the sum of sqrt(p q) over its classes.

    Attributes:
        means: of the roots of its probabilities over these images, one for each of its classes.
        least: what an image of a new class has at least.
    """

    means: Sequence[float]
    least: float

    def of(self, base: Tensor) -> Tensor:
        """The base's logits (N, old) -> (N,), 0 to 1."""
        return roots(base) @ torch.tensor(self.means, dtype=base.dtype, device=base.device)

    def margin(self, base: Tensor) -> Tensor:
        """How far the logarithm is above that of ``least``: (N, old) -> (N,)."""
        return self.of(base).clamp(min=torch.finfo(base.dtype).tiny).log() - math.log(self.least)


def roots(logits: Tensor) -> Tensor:
    """Square roots of the probabilities, (N, classes) each."""
    return (logits.log_softmax(dim=1) / 2).exp()


@dataclass(frozen=True)
class JoinLogits:
    """Of classifiers: the base's logits, then each other's, (N, old + new).

    Attributes:
        shifts: what is added to another's logits, by its name, so that they can be compared with the base's.
        likeness: by name of an other, by how much its highest logit may be above the base's: the image's margin. So
            none of its classes wins on an image in which the base sees something else than in theirs.
        places: the column of each of another's logits, by its name; without, they follow. Where one is there already,
            the higher logit counts.
    """

    shifts: dict[str, float] = field(default_factory=dict)
    places: dict[str, list[int]] = field(default_factory=dict)
    likeness: dict[str, Likeness] = field(default_factory=dict)

    def __call__(self, base: Tensor, others: dict[str, Tensor]) -> Tensor:
        """Logits (N, old) and, by name, (N, new)."""
        joined, highest = base, base.amax(dim=1)
        for name, logits in others.items():
            new = logits + self.shifts.get(name, 0.0)
            if (likeness := self.likeness.get(name)) is not None:
                above = new.amax(dim=1) - highest
                new = new - (above - likeness.margin(base)).clamp(min=0)[:, None]
            joined = _placed(joined, new, self.places.get(name))
        return joined


@dataclass(frozen=True)
class JoinDetections:
    """Of detectors: the base's objects, then each other's, whose labels count on behind those before.

    Attributes:
        labels: how many labels the base has, and by name each other: the least number above all of them.
        overlap: where an other's box overlaps a box before it by a larger IoU, the one with the lower score goes; None
            keeps both, and so the base's as they are.
        same: by name of an other, which of its labels are labels of what is before it.
    """

    labels: dict[str, int]
    overlap: float | None = None
    same: dict[str, dict[int, int]] = field(default_factory=dict)

    def __call__(self, base: list[dict[str, Tensor]], others: dict[str, list[dict[str, Tensor]]]) -> Any:
        """As torchvision's detectors answer: of each image boxes (K, 4), labels (K,), scores (K,), maybe masks."""
        images = []
        for place, found in enumerate(base):
            offset, joined = self.labels[""], found
            for name, theirs in others.items():
                labels = theirs[place]["labels"] + offset
                for own, known in self.same.get(name, {}).items():
                    labels = torch.where(labels == own + offset, known, labels)
                shifted = {**theirs[place], "labels": labels}
                offset += self.labels[name]
                joined = self._joined(joined, shifted)
            images.append(joined)
        return images

    def _joined(self, one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.overlap is not None:
            overlapping = box_iou(one["boxes"], other["boxes"]) > self.overlap  # (K, L)
            stronger = one["scores"][:, None] >= other["scores"][None]
            gone, theirs_gone = (overlapping & ~stronger).any(1), (overlapping & stronger).any(0)
            one = {key: value[~gone] for key, value in one.items()}
            other = {key: value[~theirs_gone] for key, value in other.items()}
        return {key: torch.cat([one[key], other[key]]) for key in one if key in other}


@dataclass(frozen=True)
class JoinPixels:
    """Of segmenters: the base's logits, then for each other's classes but its background logits that win a pixel where
    they win against that background.

    Attributes:
        backgrounds: the column of the background in each other's logits, by its name.
        places: of the other columns, as ``JoinLogits`` has them.
    """

    backgrounds: dict[str, int]
    places: dict[str, list[int]] = field(default_factory=dict)

    def __call__(self, base: Tensor, others: dict[str, Tensor]) -> Tensor:
        """Logits (N, old, H, W) and, by name, (N, background + new, H, W) -> (N, old + new, H, W)."""
        joined, highest = base, base.amax(dim=1, keepdim=True)
        for name, logits in others.items():
            column = self.backgrounds[name]
            margin = logits - logits[:, column : column + 1]
            new = highest + torch.cat([margin[:, :column], margin[:, column + 1 :]], dim=1)
            joined = _placed(joined, new, self.places.get(name))
            highest = torch.maximum(highest, new.amax(dim=1, keepdim=True))
        return joined


def _placed(joined: Tensor, new: Tensor, places: list[int] | None) -> Tensor:
    """(N, old, ...) and (N, new, ...) -> (N, all, ...), each new column in its place."""
    width = joined.shape[1]
    behind = [column for column in range(new.shape[1]) if places is None or places[column] >= width]
    for column, place in enumerate(places or ()):
        if place < width:
            higher = torch.maximum(joined[:, place : place + 1], new[:, column : column + 1])
            joined = torch.cat([joined[:, :place], higher, joined[:, place + 1 :]], dim=1)
    return torch.cat([joined, new if len(behind) == new.shape[1] else new[:, behind]], dim=1)


def begins_with(found: Any, base: Any) -> bool:
    """Whether joined outputs begin with the base's, bit for bit: logits, or each image's objects."""
    if isinstance(base, Tensor):
        return torch.equal(found[:, : base.shape[1]], base)
    return len(found) == len(base) and all(
        key in one and torch.equal(one[key][: len(value)], value)
        for one, alone in zip(found, base, strict=True)
        for key, value in alone.items()
    )
