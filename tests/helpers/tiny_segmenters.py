"""What several tests of segmenters share."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionlora.models.segmenter import Segmenter, create_segmenter

CLASSES = ["background", "lorry", "roof sign"]


def create(name: str, **options: Any) -> Segmenter:
    """Untrained, small, and without a hub unless the test says otherwise."""
    if "backbone" in options and name != "linear":
        options = {"channels": 16, **options}
    return create_segmenter(name, **{"classes": CLASSES, "pretrained": False, **options})


def images(number: int, height: int, width: int) -> Tensor:
    """Normalised: (number, 3, height, width)."""
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(1))


def masks(like: Tensor, classes: int = len(CLASSES)) -> Tensor:
    """(N, H, W): a class per row of pixels, in turn."""
    rows = torch.arange(like.shape[2]) % classes
    return rows[None, :, None].expand(like.shape[0], -1, like.shape[3])


def loss(model: nn.Module, pictures: Tensor) -> Tensor:
    return F.cross_entropy(model.train()(pictures), masks(pictures))


def run(model: nn.Module, pictures: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(pictures)
    return logits


def settle(model: nn.Module, pictures: Tensor) -> None:
    """Give BatchNorm the statistics of these images: an untrained, deep model's output vanishes without."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
