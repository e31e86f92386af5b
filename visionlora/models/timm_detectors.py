"""torchvision's detectors over a timm backbone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import MultiScaleRoIAlign

from visionlora.errors import InputError, some
from visionlora.models import torchvision_detectors
from visionlora.models.anchors import Anchors, default_anchors
from visionlora.models.built import BuiltDetector
from visionlora.models.pyramids import COARSEST, TimmPyramid, build_pyramid
from visionlora.models.timm_features import create_body
from visionlora.models.weights import explain_mismatch, read_state_dict

NAMES = ("faster_rcnn", "mask_rcnn", "retinanet", "fcos")
GROUP = 8
"""Channels in each group of a head's GroupNorm, as in torchvision's of 256 channels."""
SIZE = 640
"""Pixels of an image's longest side, unless another one is asked for."""

_LARGEST = 1 << 28
"""Weights of one layer, a gigabyte."""

_PROPOSALS = {
    "rpn_pre_nms_top_n_train": 500,
    "rpn_pre_nms_top_n_test": 500,
    "rpn_post_nms_top_n_train": 500,
    "rpn_post_nms_top_n_test": 500,
    "box_batch_size_per_image": 128,
}
"""A quarter of torchvision's, which are for COCO on GPUs: a step then costs 0.6 of what it did."""


@dataclass(frozen=True)
class Layout:
    """How large the new parts of a detector are; see ``create_detector``."""

    levels: Sequence[int] = (3, 4, 5, 6)
    fpn_channels: int = 64
    head_convs: int = 2
    anchors: Anchors | None = None


def create(
    name: str, classes: Sequence[str], backbone: str, pretrained: bool, checkpoint: Path | None, layout: Layout
) -> BuiltDetector:
    """The detector ``name`` over ``backbone``; see ``create_detector``."""
    num_classes = len(classes)
    _check(name, layout, num_classes)
    own = torchvision_detectors.stated_detector(checkpoint)
    body = create_body(backbone, *((False, None) if own else (pretrained, checkpoint)))
    pyramid, unused = build_pyramid(backbone, body, layout.levels, layout.fpn_channels)
    image = {"image_mean": list(body.data_config["mean"]), "image_std": list(body.data_config["std"])}
    build = {"retinanet": _retinanet, "fcos": _fcos, "faster_rcnn": _faster_rcnn, "mask_rcnn": _mask_rcnn}[name]
    model = build(pyramid, num_classes, layout, image)
    first = 1 if isinstance(model, FasterRCNN) else 0  # the R-CNNs have a background at 0
    labels = tuple(range(first, first + num_classes))
    for layer in unused:
        body.model.get_submodule(layer).requires_grad_(False)
    new = above_backbone(model)
    if own is not None:
        assert checkpoint is not None
        new = _load_whole(model, name, classes, own, first, checkpoint)
    return BuiltDetector(model, new, [f"backbone.body.{layer}" for layer in unused], labels, SIZE)


def above_backbone(model: nn.Module) -> list[str]:
    """Names of the modules of a detector over a timm backbone that are not the backbone's: pyramid and head."""
    return ["backbone.fpn", *(["rpn", "roi_heads"] if isinstance(model, FasterRCNN) else ["head"])]


def _load_whole(
    model: nn.Module, name: str, classes: Sequence[str], own: list[str], first: int, checkpoint: Path
) -> list[str]:
    """Fill the model from a file of a whole detector of ``own`` classes; names of its modules that stay new."""
    tensors = read_state_dict(checkpoint)
    new = [] if own == list(classes) else list(torchvision_detectors.predictors(model))
    if new:
        tensors |= torchvision_detectors.rows_of_same_names(model, tensors, classes, own, first)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(explain_mismatch(checkpoint, name, model, tensors, error)) from error
    return new


def _check(name: str, layout: Layout, num_classes: int) -> None:
    first, last = layout.levels[0] if layout.levels else 0, layout.levels[-1] if layout.levels else 0
    if list(layout.levels) != list(range(first, last + 1)) or not 1 <= first <= COARSEST or last > 8:
        raise InputError(
            f"model.levels are {some(layout.levels)}; give consecutive ones from 1 to 8, such as 3, 4, 5, 6"
        )
    if layout.fpn_channels < GROUP or layout.fpn_channels % GROUP:
        raise InputError(f"model.fpn_channels is {layout.fpn_channels}; give a multiple of {GROUP}")
    if not 1 <= layout.head_convs <= 4:
        raise InputError(f"model.head_convs is {layout.head_convs}; give 1 to 4")
    if layout.anchors is not None and name == "fcos":
        raise InputError("model fcos has no anchors; leave them out, or take retinanet")
    anchors = layout.anchors or default_anchors(layout.levels)
    pairs = zip(anchors.sizes, anchors.aspect_ratios, strict=False)
    outputs = max((len(sizes) * len(ratios) for sizes, ratios in pairs), default=0) * num_classes
    if 9 * layout.fpn_channels * outputs > _LARGEST:
        raise InputError(f"{outputs} outputs at each place, of anchors and classes, are too many; give fewer anchors")
    if layout.anchors is not None and len(layout.anchors.sizes) != len(layout.levels):
        raise InputError(
            f"anchors for {len(layout.anchors.sizes)} levels, and model.levels are {some(layout.levels)}; fit them anew"
        )


def _retinanet(pyramid: TimmPyramid, num_classes: int, layout: Layout, image: dict[str, Any]) -> nn.Module:
    anchors = (layout.anchors or default_anchors(layout.levels)).generator()
    per_place = anchors.num_anchors_per_location()[0]
    head = RetinaNetHead(layout.fpn_channels, per_place, num_classes, norm_layer=_group_norm)
    for tower in (head.classification_head, head.regression_head):
        tower.conv = tower.conv[: layout.head_convs]
    return RetinaNet(pyramid, num_classes, anchor_generator=anchors, head=head, **image)


def _fcos(pyramid: TimmPyramid, num_classes: int, layout: Layout, image: dict[str, Any]) -> nn.Module:
    strides = tuple((float(2**level),) for level in layout.levels)
    points = Anchors(strides, ((1.0,),) * len(strides))
    head = FCOSHead(layout.fpn_channels, 1, num_classes)
    sizes = {"num_anchors": 1, "num_convs": layout.head_convs, "norm_layer": _group_norm}
    head.classification_head = FCOSClassificationHead(layout.fpn_channels, num_classes=num_classes, **sizes)
    head.regression_head = FCOSRegressionHead(layout.fpn_channels, **sizes)
    # As low as the others' threshold: average precision counts on boxes of low score as well.
    return FCOS(pyramid, num_classes, anchor_generator=points.generator(), head=head, score_thresh=0.05, **image)


def _faster_rcnn(pyramid: TimmPyramid, num_classes: int, layout: Layout, image: dict[str, Any]) -> nn.Module:
    return FasterRCNN(pyramid, **_box_branch(num_classes, layout), **image)


def _mask_rcnn(pyramid: TimmPyramid, num_classes: int, layout: Layout, image: dict[str, Any]) -> nn.Module:
    channels = layout.fpn_channels
    return MaskRCNN(
        pyramid,
        mask_roi_pool=_roi_pool(layout, 14),
        mask_head=MaskRCNNHeads(channels, (channels,) * layout.head_convs, dilation=1),
        mask_predictor=MaskRCNNPredictor(channels, channels, num_classes + 1),
        **_box_branch(num_classes, layout),
        **image,
    )


def _box_branch(num_classes: int, layout: Layout) -> dict[str, Any]:
    hidden = 4 * layout.fpn_channels
    return {
        "rpn_anchor_generator": (layout.anchors or default_anchors(layout.levels)).generator(),
        "box_roi_pool": _roi_pool(layout, 7),
        "box_head": TwoMLPHead(layout.fpn_channels * 7 * 7, hidden),
        "box_predictor": FastRCNNPredictor(hidden, num_classes + 1),
        **_PROPOSALS,
    }


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)


def _roi_pool(layout: Layout, cells: int) -> MultiScaleRoIAlign:
    maps = [f"p{level}" for level in layout.levels if level <= COARSEST]
    return MultiScaleRoIAlign(maps, output_size=cells, sampling_ratio=2)
