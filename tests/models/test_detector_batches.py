"""What a camera's data bring: empty images, objects of one pixel, images of several sizes, a batch of one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.ssd import SSD

from helpers.tiny_detectors import (
    accept_any_score,
    create,
    detect,
    images,
    look_at_few_boxes,
    no_objects,
    settle,
    targets,
)
from visionlora.models.detector import Detector

CLASSES = ["lorry", "roof sign"]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("retinanet", {"backbone": "test_efficientnet"}),
    ("fcos", {"backbone": "test_vit"}),
    ("faster_rcnn", {"backbone": "test_vit"}),
    ("mask_rcnn", {"backbone": "test_efficientnet"}),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", {}),
    ("maskrcnn_resnet50_fpn", {}),
    ("retinanet_resnet50_fpn_v2", {}),
    ("fcos_resnet50_fpn", {}),
    ("ssdlite320_mobilenet_v3_large", {}),
]
SIZES = ((45, 70), (70, 61), (33, 35))
"""Height and width; 70 is the longest side that the models look at, and no multiple of 32."""


@pytest.fixture(scope="module", params=CASES, ids=[f"{name}-{options.get('backbone')}" for name, options in CASES])
def detector(request: pytest.FixtureRequest) -> Detector:
    """Not to be changed, but for gradients. BatchNorm is frozen, as it is in training."""
    torch.manual_seed(0)
    name, options = request.param
    made = create(name, CLASSES, size=70, **options)
    look_at_few_boxes(made.model)
    settle(made.model, images(*SIZES))
    accept_any_score(made.model)
    return made


def one_pixel(pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    """Two objects in each picture, in its first and in its last pixel."""
    found = []
    for picture in pictures:
        height, width = picture.shape[1:]
        boxes = torch.tensor([[0.0, 0, 1, 1], [width - 1, height - 1, width, height]])
        masks = torch.zeros(2, height, width, dtype=torch.uint8)
        masks[0, 0, 0] = masks[1, -1, -1] = 1
        found.append({"boxes": boxes, "labels": torch.tensor([1, 0]), "masks": masks})
    return found


def train_on(detector: Detector, pictures: list[Tensor], given: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The losses; everything that has a gradient has a finite one."""
    model = detector.model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    model.zero_grad(set_to_none=True)
    found: dict[str, Tensor] = model(pictures, detector.to_model(given))
    assert all(torch.isfinite(loss) for loss in found.values()), found
    sum(found.values()).backward()  # type: ignore[union-attr]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
    return found


def test_a_batch_of_negatives_trains_the_scores_alone(detector: Detector) -> None:
    pictures = images(*SIZES)
    found = train_on(detector, pictures, no_objects(pictures))
    places = [name for name in found if "box" in name or "bbox" in name or "mask" in name]
    assert places and all(found[name] == 0 for name in places)
    # torchvision's SSD takes three negatives for each object: an image without any teaches it nothing.
    learns = not isinstance(detector.model, SSD)
    assert all((loss > 0) == learns for name, loss in found.items() if name not in places)


def test_a_negative_beside_a_positive_counts(detector: Detector) -> None:
    pictures = images(*SIZES)
    given = [*targets(detector, pictures[:1]), *no_objects(pictures[1:])]
    found = train_on(detector, pictures, given)
    assert all(loss > 0 for loss in found.values()), found


def test_objects_of_one_pixel_train(detector: Detector) -> None:
    pictures = images(*SIZES)
    found = train_on(detector, pictures, one_pixel(pictures))
    assert sum(found.values()) > 0


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_of_one_trains(detector: Detector, size: tuple[int, int]) -> None:
    pictures = images(size)
    found = train_on(detector, pictures, targets(detector, pictures))
    assert all(loss > 0 for loss in found.values()), found


def test_images_of_several_sizes_are_detected_in_to_their_own_edges(detector: Detector) -> None:
    """Each is scaled to 70 pixels on its own, and padded to the largest, rounded up to 96."""
    pictures = images(*SIZES)
    for picture, found in zip(pictures, detect(detector, pictures), strict=True):
        height, width = picture.shape[1:]
        assert len(found["boxes"]) > 0 and (found["boxes"] >= 0).all()
        assert (found["boxes"][:, 2:] <= torch.tensor([width, height]) + 1e-3).all()
        assert found["boxes"][:, 2].max() > 0.8 * width and found["boxes"][:, 3].max() > 0.8 * height
        if detector.masks:
            assert found["masks"].shape == (len(found["boxes"]), 1, height, width)
