"""Which images are worth labelling: the most different ones, as a pretrained model sees them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.data.images import read_image
from visionlora.errors import InputError
from visionlora.models.classifier import Classifier

_BATCH = 16


def farthest_first(features: np.ndarray, count: int) -> list[tuple[int, float]]:
    """``count`` rows of (N, D), each as far as can be from those before it (Gonzalez 1985: within a factor of two, no
    choice of as many leaves every row nearer to a chosen one).

    The first is the nearest to the mean: the most usual one. Of equally far rows it is the first, so that the same
    features give the same choice, and a smaller ``count`` its beginning.

    Returns:
        the row and its Euclidean distance to the nearest one before; 0 for the first.

    Raises:
        InputError: there are fewer rows, or ``count`` is less than 1.
    """
    if not 1 <= count <= len(features):
        raise InputError(f"{count} of {len(features)} images can't be picked")
    points = features.astype(np.float64)
    first = int(np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1)))
    chosen, nearest = [(first, 0.0)], np.full(len(points), np.inf)
    nearest[first] = -1  # equal rows have a distance of 0, and may still be picked
    while len(chosen) < count:
        distance = ((points - points[chosen[-1][0]]) ** 2).sum(axis=1)
        nearest = np.where(nearest < 0, nearest, np.minimum(nearest, distance))
        index = int(np.argmax(nearest))
        chosen.append((index, float(np.sqrt(nearest[index]))))
        nearest[index] = -1
    return chosen


@torch.no_grad()
def image_features(
    classifier: Classifier,
    paths: Sequence[Path],
    device: torch.device | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """What enters the classifier's head, for each image, scaled to length 1: (N, D) float32.

    The whole image is seen, squashed to the model's input: a centre crop would leave out a frame's sides.

    Args:
        classifier: of any weights; it is put into eval mode.
        paths: image files.
        device: to compute on; the CPU by default.
        on_progress: called with the number of images done since the last call.

    Raises:
        InputError: an image can't be read.
    """
    device = device or torch.device("cpu")
    config = {**classifier.data_config, "crop_mode": "squash", "crop_pct": 1.0}
    transform = eval_transform(Preprocessing.from_timm(config))
    model = classifier.model.to(device).eval()
    seen: list[Tensor] = []

    def keep(_head: Any, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    handle = model.get_submodule(classifier.head[0]).register_forward_pre_hook(keep)
    rows = []
    try:
        for start in range(0, len(paths), _BATCH):
            batch = [transform(read_image(path)) for path in paths[start : start + _BATCH]]
            seen.clear()
            model(torch.stack(batch).to(device))
            rows.append(_pooled(seen[0]).float().cpu())
            if on_progress is not None:
                on_progress(len(batch))
    finally:
        handle.remove()
    return torch.nn.functional.normalize(torch.cat(rows), dim=1).numpy()


def _pooled(features: Tensor) -> Tensor:
    """(N, D), or feature maps (N, D, H, W) before a head that pools -> (N, D)."""
    return features.mean(dim=(2, 3)) if features.dim() == 4 else features.flatten(1)
