"""Orders of an epoch for detection: rare classes more often, images of one shape side by side.

Like ``loading.epoch_order``, each is a function of seed and epoch; ``loading.batches`` cuts them.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.choosing import Images

_SHAPES = 1
"""Added to the seeds, so that batches aren't shuffled with the numbers that shuffled the images."""


def repeat_factor_order(
    labels: Sequence[Collection[int]], n_classes: int, seed: int, epoch: int, threshold: float
) -> list[int]:
    """Images in random order, those with rare classes repeated (Gupta et al., LVIS, arXiv:1908.03195, section 4.2).

    A class that a share f of the images shows has the factor max(1, sqrt(threshold / f)), and an image the largest
    of its classes'. Over the epochs an image comes that often on average; in one epoch, that number rounded up
    or down. Every epoch is as long as the factors' sum, rounded.

    Args:
        labels: the classes of each image.
        threshold: classes in a smaller share of the images than this are repeated, in (0, 1].
    """
    shown = np.zeros(n_classes)
    for classes in labels:
        shown[list(set(classes))] += 1
    by_class = np.sqrt(np.maximum(1, threshold * len(labels) / np.maximum(shown, 1)))
    factors = np.array([max((by_class[name] for name in classes), default=1.0) for classes in labels])
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(len(labels))
    # Where the running sum of factors passes a whole number (at a random offset), an image is drawn: the total is
    # then the same in every epoch, as a learning rate's schedule needs it.
    total = round(float(factors.sum()))
    passed = np.floor(np.cumsum(factors[shuffled]) * (total / max(factors.sum(), 1)) + generator.random())
    if len(passed):
        passed[-1] = total
    drawn = np.repeat(shuffled, np.diff(passed, prepend=0).astype(int))
    return generator.permutation(drawn).tolist()


def group_by_shape(order: list[int], ratios: Sequence[float], batch_size: int, seed: int, epoch: int) -> list[int]:
    """The same indices, so that batches of ``batch_size`` hold images of similar shape: they are padded to the largest.

    Shapes are similar whose width / height lies in the same step of sqrt(2): 4:3 with 3:2, 16:9 by itself, 1:1 by
    itself. What is left over of each shape comes together in mixed batches, neighbours first. Within a shape
    ``order`` holds; the batches are shuffled, and an incomplete one stays last.

    Args:
        ratios: width / height of every image, by index.
    """
    shapes: dict[int, list[int]] = defaultdict(list)
    for index in order:
        shapes[round(2 * math.log2(ratios[index]))].append(index)
    whole: list[list[int]] = []
    rest: list[int] = []
    for shape in sorted(shapes):
        group = shapes[shape]
        full = len(group) - len(group) % batch_size
        whole += [group[start : start + batch_size] for start in range(0, full, batch_size)]
        rest += group[full:]
    full = len(rest) - len(rest) % batch_size
    whole += [rest[start : start + batch_size] for start in range(0, full, batch_size)]
    shuffled = np.random.default_rng([seed, epoch, _SHAPES]).permutation(len(whole))
    return [index for which in shuffled for index in whole[which]] + rest[full:]


def aspect_ratios(data: Images) -> list[float]:
    """Width / height of every image or tile."""
    return [image.width / image.height for image in data.images]


def classes_shown(data: AnnotatedImages) -> list[set[int]]:
    """The classes of every image's objects, crowds left out."""
    return [{thing.label for thing in image.objects if not thing.crowd} for image in data.images]
