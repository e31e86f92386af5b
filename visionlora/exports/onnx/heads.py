"""A one-stage detector's graph up to its raw heads; what follows is NumPy, in ``shipped.heads``."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from visionlora.exports.onnx.graph import write_traced

_FAMILIES = {RetinaNet: "retinanet", FCOS: "fcos", SSD: "ssd"}


def is_one_stage(model: nn.Module) -> bool:
    """Whether the detector has heads whose outputs are boxes and scores."""
    return type(model) in _FAMILIES


def write_heads(model: nn.Module, example: Tensor, path: Path, fields: dict[str, Any]) -> None:
    """Write the graph of a detector for which ``is_one_stage`` holds, for any number of images of any size.

    Args:
        model: plain, in eval mode, on the CPU.
        example: (3, H, W) in 0 to 1.
        path: of the file.
        fields: what one must know of it; to ``about`` the settings of its ``heads`` are added.

    Raises:
        InputError: it can't be exported.
    """
    about = _settings(model)
    names = ["logits", "deltas", *(["centerness"] if about["family"] == "fcos" else []), "anchors", "levels"]
    per_image, anchor = {0: "batch", 1: "anchors"}, {0: "anchors"}
    axes = {name: anchor if name in ("anchors", "levels") else per_image for name in names}
    # Two images, and a size that no axis of a map is 1 for: neither may be taken for a constant.
    side = about["multiple"] * 4
    images = F.interpolate(example[None], (side, 2 * side), mode="bilinear").repeat(2, 1, 1, 1)
    write_traced(
        _Heads(model, about["fixed_size"]),
        images,
        path,
        {**fields, "about": {**fields["about"], "heads": about}},
        {"images": {0: "batch", 2: "height", 3: "width"}, **axes},
    )


def _settings(model: Any) -> dict[str, Any]:
    transform = model.transform
    return {
        "family": _FAMILIES[type(model)],
        "mean": list(transform.image_mean),
        "multiple": 1 if transform.fixed_size else transform.size_divisible,
        "fixed_size": list(transform.fixed_size) if transform.fixed_size else None,
        "weights": list(getattr(model.box_coder, "weights", ())),
        **{key: getattr(model, key) for key in ("score_thresh", "nms_thresh", "topk_candidates", "detections_per_img")},
    }


class _Heads(nn.Module):
    """(N, 3, H, W) -> logits (N, A, K), deltas (N, A, 4), maybe centerness (N, A, 1), anchors (A, 4), levels (A,)."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, fixed_size: list[int] | None) -> None:
        super().__init__()
        self.model = model
        self.fixed_size = fixed_size
        self.register_buffer("mean", torch.tensor(model.transform.image_mean)[:, None, None])
        self.register_buffer("std", torch.tensor(model.transform.image_std)[:, None, None])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        images = (images - self.mean) / self.std
        if self.fixed_size:
            width, height = self.fixed_size
            images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
        maps = self.model.backbone(images)
        maps = list(maps.values()) if isinstance(maps, dict) else [maps]
        heads = self.model.head(maps)
        shape = (images.shape[2], images.shape[3])
        (anchors,) = self.model.anchor_generator(ImageList(images, [shape]), maps)
        per_place = self.model.anchor_generator.num_anchors_per_location()
        levels = [
            torch.full_like(one[0, :1], index, dtype=torch.int64).expand(count, -1, -1).flatten()
            for index, (one, count) in enumerate(zip(maps, per_place, strict=True))
        ]
        centerness = [heads["bbox_ctrness"]] if "bbox_ctrness" in heads else []
        return (heads["cls_logits"], heads["bbox_regression"], *centerness, anchors, torch.cat(levels))
