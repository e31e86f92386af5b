"""Losses of a segmenter: (N, C, H, W) logits against (N, H, W) int64 classes and ``IGNORE``.

All are means over what is not ignored, in float32 whatever the logits are. Where everything is ignored the loss is 0,
and so are its gradients. Each is a function of sums over pixels, which add up where a batch is seen in parts.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.data.segmentation.class_map import IGNORE
from visionlora.errors import InputError, did_you_mean, some

LOSSES = ("cross_entropy", "dice", "focal")


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    weights: Mapping[str, float],
    class_weights: Tensor | None = None,
    gamma: float = 2.0,
) -> dict[str, Tensor]:
    """The weighted losses by name, for their sum to be trained on: ``{"cross_entropy": 1, "dice": 0.5}``.

    Args:
        weights: of the names in ``LOSSES``.
        class_weights: (C,) for cross-entropy and focal; dice weighs classes alike as it is.
        gamma: of focal.

    Raises:
        InputError: another name, no name, or a weight that is not above 0.
    """
    refuse_weights(weights)
    return losses_of(segmentation_sums(logits, target, weights, class_weights, gamma), weights)


def segmentation_sums(
    logits: Tensor,
    target: Tensor,
    names: Iterable[str],
    class_weights: Tensor | None = None,
    gamma: float = 2.0,
) -> dict[str, Tensor]:
    """What ``segmentation_loss`` makes each loss from: (2,) of cross-entropy and focal, (3, C) of dice."""
    sums = {}
    for name in names:
        if name == "dice":
            sums[name] = _dice_sums(logits, target)
        elif name == "focal":
            sums[name] = _focal_sums(logits, target, gamma, class_weights)
        else:
            sums[name] = _cross_entropy_sums(logits, target, class_weights)
    return sums


def losses_of(sums: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The weighted losses of a batch, whose sums these are."""
    return {name: weight * (_dice if name == "dice" else _mean)(sums[name]) for name, weight in weights.items()}


def refuse_weights(weights: Mapping[str, float]) -> None:
    """Raises InputError unless there is a weight, each is above 0, and each has a name of ``LOSSES``."""
    if not weights:
        raise InputError(f"no loss is given; choose from {some(LOSSES)}")
    for name, weight in weights.items():
        if name not in LOSSES:
            raise InputError(f"unknown loss '{name}'{did_you_mean(name, LOSSES)}; there are {some(LOSSES)}")
        if not 0 < weight < float("inf"):
            raise InputError(f"the loss '{name}' has the weight {weight}; give a number above 0, or leave it out")


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Scalar, as ``F.cross_entropy``: the mean over pixels, weighted by their class."""
    return _mean(_cross_entropy_sums(logits, target, class_weights))


def _cross_entropy_sums(logits: Tensor, target: Tensor, class_weights: Tensor | None) -> Tensor:
    loss = F.cross_entropy(logits.float(), target, class_weights, ignore_index=IGNORE, reduction="sum")
    return torch.stack([loss, total_weight(target, class_weights)])


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None) -> Tensor:
    """Scalar: cross-entropy with each pixel times (1 - p)^gamma, p the probability of its class.

    Lin et al., Focal Loss for Dense Object Detection, 2017, with softmax in the place of sigmoid.
    """
    return _mean(_focal_sums(logits, target, gamma, class_weights))


def _focal_sums(logits: Tensor, target: Tensor, gamma: float, class_weights: Tensor | None) -> Tensor:
    # clamped, for the gradient of (1 - p)^gamma where p is 1 and gamma below 1
    entropy = F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="none")  # (N, H, W)
    loss = (1 - torch.exp(-entropy)).clamp(min=1e-6) ** gamma * entropy
    if class_weights is not None:
        loss = loss * class_weights[target.where(target != IGNORE, 0)]
    return torch.stack([loss.sum(), total_weight(target, class_weights)])


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """Scalar: 1 - 2 sum(p y) / (sum(p) + sum(y)), the mean over the classes that the batch's target shows.

    Sums are over all pixels of the batch, p are softmax probabilities and y is 0 or 1.
    """
    return _dice(_dice_sums(logits, target))


def _dice_sums(logits: Tensor, target: Tensor) -> Tensor:
    """(3, C): of p y, p and y."""
    classes = logits.shape[1]
    valid = target != IGNORE  # (N, H, W)
    probabilities = logits.float().softmax(dim=1) * valid[:, None]  # (N, C, H, W)
    labels = target[valid]
    size = torch.zeros(classes, device=logits.device)
    size = size.index_add(0, labels, torch.ones_like(labels, dtype=torch.float32))  # (C,)
    own = probabilities.gather(1, target.where(valid, 0)[:, None])[:, 0]  # (N, H, W), 0 where ignored
    overlap = torch.zeros(classes, device=logits.device).index_add(0, labels, own[valid])
    return torch.stack([overlap, probabilities.sum(dim=(0, 2, 3)), size])


def _dice(sums: Tensor) -> Tensor:
    overlap, probabilities, size = sums
    score = 2 * overlap / (probabilities + size).clamp(min=1e-6)
    shown = (size > 0).float()
    return ((1 - score) * shown).sum() / shown.sum().clamp(min=1)


def median_frequency_weights(pixels: Sequence[Sequence[int]]) -> Tensor:
    """(C,) class weights that make rare classes count: the median frequency over the class's own.

    A class's frequency is its share of the pixels of those images that show it (Eigen and Fergus, Predicting Depth,
    Surface Normals and Semantic Labels, 2015). A class that no image shows has weight 0.

    Args:
        pixels: for each image its pixels per class, as ``SegmentedImage.pixels``.
    """
    counts = torch.tensor(pixels, dtype=torch.float64)  # (N, C)
    there = (counts > 0).double()
    frequency = counts.sum(dim=0) / (counts.sum(dim=1, keepdim=True) * there).sum(dim=0).clamp(min=1)
    shown = frequency > 0
    if not shown.any():
        return torch.zeros(counts.shape[1])
    median = frequency[shown].quantile(0.5)
    return torch.where(shown, median / frequency.clamp(min=1e-12), 0.0).float()


def total_weight(target: Tensor, class_weights: Tensor | None) -> Tensor:
    """(): what is not ignored, each pixel with the weight of its class: cross-entropy and focal are means over it."""
    valid = target != IGNORE
    return valid.sum().float() if class_weights is None else class_weights[target[valid]].sum()


def _mean(sums: Tensor) -> Tensor:
    """Of a sum and what it is divided by; 1 where that would be 0."""
    total, weight = sums
    return total / torch.where(weight > 0, weight, 1.0)
