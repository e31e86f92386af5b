"""What several tests of detectors share."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from visionlora.models.detector import Detector, create_detector


def create(name: str, classes: list[str], **options: Any) -> Detector:
    """Untrained, small, and without a hub unless the test says otherwise."""
    if "backbone" in options:
        options = {"fpn_channels": 32, "head_convs": 1, **options}
    return create_detector(name, classes, **{"pretrained": False, "size": 64, **options})


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def targets(detector: Detector, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    """One object of each class in every picture, of a third of its sides; labels count classes."""
    found = []
    for picture in pictures:
        height, width = picture.shape[1:]
        number = len(detector.classes)
        corners = torch.tensor([[width * i / (2 * number), height / 5] for i in range(number)])
        boxes = torch.cat([corners, corners + torch.tensor([width / 3, height / 3])], dim=1)
        masks = torch.zeros(number, height, width, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        found.append({"boxes": boxes, "labels": torch.arange(number), "masks": masks})
    return found


def no_objects(pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    return [
        {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "masks": torch.zeros(0, *picture.shape[1:], dtype=torch.uint8),
        }
        for picture in pictures
    ]


def losses(detector: Detector, pictures: list[Tensor]) -> dict[str, Tensor]:
    return detector.model.train()(pictures, detector.to_model(targets(detector, pictures)))


def detect(detector: Detector, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        return detector.to_classes(detector.model.eval()(pictures))


def accept_any_score(model: nn.Module) -> None:
    """Let the untrained model's boxes through."""
    (model.roi_heads if hasattr(model, "roi_heads") else model).score_thresh = 0.0  # type: ignore[assignment]


def look_at_few_boxes(model: Any) -> None:
    """Let an R-CNN spend less time: few proposals, of which few train."""
    if hasattr(model, "rpn"):
        model.rpn._post_nms_top_n = {"training": 20, "testing": 20}
        model.roi_heads.fg_bg_sampler.batch_size_per_image = 16


def settle(model: nn.Module, pictures: list[Tensor]) -> None:
    """Give BatchNorm the statistics of these images: an untrained, deep model's output vanishes without."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures, no_objects(pictures))
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value


def randomise(model: nn.Module) -> None:
    """Let no two rows and no two statistics be equal, so that nothing passes by chance."""
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif key.endswith(("running_mean", "bias")):
                value.add_(0.1 * torch.randn_like(value))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone().contiguous() for key, value in model.state_dict().items()}


def write(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file(tensors, path)
    return path
