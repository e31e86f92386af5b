"""A detector of boxes, or of boxes and masks, by its name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from visionlora.errors import InputError, did_you_mean, some
from visionlora.models import timm_detectors, torchvision_detectors
from visionlora.models.anchors import Anchors
from visionlora.models.timm_detectors import Layout
from visionlora.models.torchvision_detectors import PREFIX
from visionlora.models.weights import check_checkpoint

SMALLEST = 32
"""Pixels: what every detector pads images to multiples of."""


@dataclass(frozen=True)
class Detector:
    """A plain detector and what one must know to feed it.

    ``model`` has torchvision's interface: in training (images, targets) -> dict of losses, in eval images ->
    list of dicts with ``boxes`` (N, 4) in pixels of the image given, ``labels`` (N,), ``scores`` (N,), and with
    ``masks`` (N, 1, H, W) in 0..1 where it makes masks. Images are a list of (3, H, W) float RGB in 0..1; the model
    scales their longest side to ``data_config["size"]`` and normalises them itself.

    Detectors count classes in different ways: with a background at 0 (R-CNN, SSD), without (RetinaNet, FCOS),
    or with the gaps of COCO's own numbers. ``model_labels`` is the one place that says how, and ``to_model`` and
    ``to_classes`` apply it; all others count ``classes`` from 0.

    Attributes:
        model: everything in it can train.
        head: names of the modules that are new, and must train fully. None where pretrained weights know
            exactly these classes.
        unused: names of the backbone's layers that no output depends on: of no use to an adapter.
        classes: their names.
        model_labels: the model's label of each class.
        masks: whether it makes (and in training asks for) masks.
        data_config: ``size``, the longest side of an image in pixels; ``mean`` and ``std``.
    """

    model: nn.Module
    head: list[str]
    unused: list[str]
    classes: list[str]
    model_labels: tuple[int, ...]
    masks: bool
    data_config: dict[str, Any]

    def to_model(self, targets: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Targets whose ``labels`` count classes -> targets for the model. Nothing else changes."""
        return [{**target, "labels": self._table(target["labels"])[target["labels"]]} for target in targets]

    def to_classes(self, outputs: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The model's detections -> the same with ``labels`` that count classes.

        Detections of what is no class (COCO's 91 outputs have 11 without a name) are left out.
        """
        converted = []
        for output in outputs:
            equal = output["labels"][:, None] == self._table(output["labels"])  # (N, classes)
            known = equal.any(dim=1)
            kept = {key: value[known] for key, value in output.items()}
            converted.append({**kept, "labels": equal[known].int().argmax(dim=1)})
        return converted

    def _table(self, labels: Tensor) -> Tensor:
        return torch.tensor(self.model_labels, device=labels.device)


def create_detector(
    name: str,
    classes: Sequence[str],
    *,
    backbone: str | None = None,
    pretrained: bool = True,
    checkpoint: Path | None = None,
    size: int | None = None,
    data_config: dict[str, Any] | None = None,
    levels: Sequence[int] | None = None,
    fpn_channels: int | None = None,
    head_convs: int | None = None,
    anchors: Anchors | None = None,
) -> Detector:
    """Create a detector for ``classes``.

    Args:
        name: one of torchvision's detectors (``fasterrcnn_resnet50_fpn_v2``, ``ssdlite320_mobilenet_v3_large`` ...),
            or ``faster_rcnn``, ``mask_rcnn``, ``retinanet`` or ``fcos`` over a ``backbone``.
        classes: their names. torchvision's detectors keep what their weights know of classes that bear a name of
            COCO's ("Traffic_light" is "traffic light"); the others' part of the head is new.
        backbone: a timm name: a CNN, a Swin or another transformer with maps of several strides, or a plain ViT.
        pretrained: take weights from the library's hub, unless there is a ``checkpoint``: the whole detector's, or
            the backbone's.
        checkpoint: a local file of the same (safetensors or pth). A file of a whole detector may have COCO's
            91 outputs, or as many as ``classes`` need: it is then taken as made for them, unless it states others.
            Over a ``backbone`` too it may be a whole detector's that ``visionlora merge`` or ``export`` wrote.
        size: pixels of an image's longest side. By default 640 over a timm backbone, and for torchvision's what
            gives a frame of 16:9 the scale that they were trained at. SSD then scales both sides to its fixed size.
        data_config: ``mean`` and ``std`` that replace the weights' own.
        levels: of the pyramid over a timm backbone, finest first; level l has a stride of 2^l. By default 3 to 6.
            R-CNN takes its boxes' features from those up to 5.
        fpn_channels: of that pyramid and the head, a multiple of 8; by default 64. An R-CNN's box head has 4 times
            as many units.
        head_convs: 1 to 4 convolutions in each branch of the head of RetinaNet and FCOS, and in Mask R-CNN's mask
            branch; by default 2.
        anchors: from ``fit_anchors`` (not FCOS, which has none).

    Raises:
        InputError: what was given can't be used, or weights can't be fetched.
    """
    _check(name, classes, backbone, checkpoint, size)
    asked: dict[str, Any] = {
        "levels": levels,
        "fpn_channels": fpn_channels,
        "head_convs": head_convs,
        "anchors": anchors,
    }
    layout = {key: value for key, value in asked.items() if value is not None}
    if backbone is None:
        if layout:
            raise InputError(f"model {name} has its own {some(layout)}; leave them out, or choose a model.backbone")
        built = torchvision_detectors.create(name.removeprefix(PREFIX), classes, pretrained, checkpoint)
    else:
        built = timm_detectors.create(name, classes, backbone, pretrained, checkpoint, Layout(**layout))
    config = _set_transform(built.model, size or built.size, data_config or {})
    _tell_strides(built.model)
    masks = isinstance(built.model, MaskRCNN)
    return Detector(built.model, built.head, built.unused, list(classes), built.labels, masks, config)


def own_classes(name: str, backbone: str | None, pretrained: bool, checkpoint: Path | None) -> list[str]:
    """The classes that a detector's weights know; empty where they are a backbone's alone, or none."""
    check_checkpoint(checkpoint)
    if (own := torchvision_detectors.stated_detector(checkpoint)) is not None:
        return own
    if backbone is not None:
        return []
    return torchvision_detectors.own_classes(name.removeprefix(PREFIX), pretrained, checkpoint)


def detector_names() -> list[str]:
    """Every ``name`` that ``create_detector`` knows."""
    return [*timm_detectors.NAMES, *torchvision_detectors.names()]


def _check(name: str, classes: Sequence[str], backbone: str | None, checkpoint: Path | None, size: int | None) -> None:
    over_backbone = name in timm_detectors.NAMES
    if not over_backbone and name.removeprefix(PREFIX) not in torchvision_detectors.names():
        known = detector_names()
        raise InputError(f"unknown detector '{name}'{did_you_mean(name, known)}; known are {some(known, len(known))}")
    if over_backbone and backbone is None:
        raise InputError(f"model {name} needs a model.backbone, such as tf_efficientnet_lite0 or resnet50")
    if not over_backbone and backbone is not None:
        raise InputError(
            f"model {name} has its own backbone, so model.backbone={backbone} can't be used; "
            f"detectors over any backbone are {some(timm_detectors.NAMES)}"
        )
    if not classes:
        raise InputError(f"model {name}: no classes; a detector needs one at least")
    if twice := [word for word, count in Counter(classes).items() if count > 1]:
        raise InputError(f"model {name}: class '{twice[0]}' is there more than once")
    check_checkpoint(checkpoint)
    if size is not None and size < SMALLEST:
        raise InputError(f"model.size is {size}; give the pixels of an image's longest side, {SMALLEST} or more")


@torch.no_grad()
def _tell_strides(model: nn.Module) -> None:
    """Let an R-CNN's pools of boxes know the strides of their maps.

    torchvision's guess them from the first image that they see, for good, and wrongly if much of it is padding: a
    narrow image would be worth another score in the first place than in the second.
    """
    pools = [module for module in model.modules() if isinstance(module, MultiScaleRoIAlign)]
    if not pools:
        return
    backbone: Any = model.backbone
    side, mode = 4 * SMALLEST, backbone.training
    maps = backbone.eval()(torch.zeros(1, 3, side, side))
    backbone.train(mode)
    for pool in pools:
        pool(maps, [torch.zeros(0, 4)], [(side, side)])


def _set_transform(model: nn.Module, size: int, replaced: dict[str, Any]) -> dict[str, Any]:
    """Let the model scale an image's longest side to ``size``, and normalise it; its data config."""
    transform = model.transform
    assert isinstance(transform, GeneralizedRCNNTransform)
    if transform.fixed_size is None:
        transform.min_size, transform.max_size = (size,), size
    transform.image_mean = list(replaced.get("mean") or transform.image_mean)
    transform.image_std = list(replaced.get("std") or transform.image_std)
    return {"size": size, "mean": tuple(transform.image_mean), "std": tuple(transform.image_std)}
