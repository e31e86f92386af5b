"""What there is to train in each task: a model of random weights, a batch of noise, and the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionlora.adapters.norm import has_running_stats
from visionlora.models import timm_detectors, timm_segmenters
from visionlora.models.classifier import create_classifier
from visionlora.models.detector import create_detector
from visionlora.models.segmenter import create_segmenter

CLASSES = 10
OBJECTS = 6
"""In an image of detection, at most; one at least."""


@dataclass(frozen=True)
class Setup:
    """What all methods have in common.

    Attributes:
        task: a key of ``TASKS``.
        over: the detector or decoder that the model is a backbone of; None in classification.
        model: timm's name; None for a detector or segmenter of torchvision's.
        rest: as in the command's help.
    """

    task: str
    over: str | None
    model: str | None
    batch: int
    size: int
    rank: int = 8
    route: str = "auto"
    memory: str = "fast"
    channels_last: bool = False
    autocast: str = "off"
    compile: str = "off"
    graph: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Case:
    """A model, and what one must know to train it on one fixed batch.

    Attributes:
        model: as it is made; all of it can train, except for ``unused``.
        head: names of the modules that are new, and train fully in each method.
        unused: names of layers that no output depends on, which no method adapts.
        example: one image, as the model takes it in eval mode.
        loss: the model (or what wraps it) -> the batch's loss, scalar.
        keep_statistics: full fine-tuning leaves BatchNorm's statistics as they are, as ``visionlora train`` has it.
    """

    model: nn.Module
    head: list[str]
    unused: list[str]
    example: Any
    loss: Callable[[nn.Module], Tensor]
    keep_statistics: bool = False


def classification(setup: Setup, batch: int) -> Case:
    """Cross-entropy of a classifier."""
    sides = (setup.size, setup.size)
    built = create_classifier(str(setup.model), CLASSES, pretrained=False, img_size=sides)
    model = _placed(built.model, setup)
    images = _placed(torch.randn(batch, 3, setup.size, setup.size), setup)
    labels = torch.randint(CLASSES, (batch,)).to(setup.device)
    return Case(model, built.head, [], images[:1], lambda called: F.cross_entropy(called(images), labels))


def detection(setup: Setup, batch: int) -> Case:
    """The sum of a detector's losses; a few boxes of any place and size in each image."""
    built = create_detector(str(setup.over), _names(), backbone=setup.model, pretrained=False, size=setup.size)
    model = _placed(built.model, setup)
    images = list(torch.rand(batch, 3, setup.size, setup.size).to(setup.device))
    targets = built.to_model([_objects(setup) for _ in images])
    _settle(model, images, targets)

    def loss(called: nn.Module) -> Tensor:
        return torch.stack([part.float() for part in called(images, targets).values()]).sum()

    return Case(model, built.head, built.unused, images[:1], loss, keep_statistics=True)


def segmentation(setup: Setup, batch: int) -> Case:
    """Cross-entropy of each pixel."""
    built = create_segmenter(str(setup.over), _names(), backbone=setup.model, pretrained=False)
    model = _placed(built.model, setup)
    images = _placed(torch.randn(batch, 3, setup.size, setup.size), setup)
    masks = torch.randint(CLASSES, (batch, setup.size, setup.size)).to(setup.device)
    return Case(
        model, built.head, built.unused, images[:1], lambda called: F.cross_entropy(called(images).float(), masks)
    )


def default_backbone(over: str) -> str | None:
    """Of a detector or decoder by its name; torchvision's have their own."""
    return "tf_efficientnet_lite0" if over in (*timm_detectors.NAMES, *timm_segmenters.NAMES) else None


def _objects(setup: Setup) -> dict[str, Tensor]:
    """An image's boxes, labels that count classes, and masks, which are full boxes."""
    number = int(torch.randint(1, OBJECTS + 1, ()))
    sides = torch.empty(number, 2).uniform_(0.05, 0.5) * setup.size
    corners = torch.rand(number, 2) * (setup.size - sides)
    boxes = torch.cat([corners, corners + sides], dim=1)
    masks = torch.zeros(number, setup.size, setup.size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    target = {"boxes": boxes, "labels": torch.randint(CLASSES, (number,)), "masks": masks}
    return {key: value.to(setup.device) for key, value in target.items()}


def _settle(model: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]) -> None:
    """Give BatchNorm the statistics of these images, as pretrained weights have them: activations that grow or vanish
    with depth leave an R-CNN no proposals to work on."""
    norms: list[Any] = [module for module in model.modules() if has_running_stats(module)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images, targets)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _placed(value: Any, setup: Setup) -> Any:
    value = value.to(setup.device)
    return value.to(memory_format=torch.channels_last) if setup.channels_last else value


def _names() -> list[str]:
    return [f"class {number}" for number in range(CLASSES)]


TASKS = {"classification": classification, "detection": detection, "segmentation": segmentation}
