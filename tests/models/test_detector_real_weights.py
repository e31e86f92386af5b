"""Detectors over real weights, on real frames (kit)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

import visionlora as vl
from helpers.tiny_detectors import detect
from visionlora.data.images import read_image
from visionlora.models.classifier import create_classifier
from visionlora.models.detector import create_detector

CLASSES = ["fedex_truck", "jimmy_johns"]
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_a_detectors_backbone_computes_what_the_classifier_does(kit: Path, backbone: str) -> None:
    checkpoint = kit / "weights" / f"{backbone}.safetensors"
    body: Any = create_detector("fcos", CLASSES, backbone=backbone, checkpoint=checkpoint).model.backbone.body  # type: ignore[union-attr]
    whole: Any = create_classifier(backbone, 1000, checkpoint=checkpoint).model
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(body.eval().forward_features(image), whole.eval().forward_features(image), atol=1e-4)


def frames(folder: Path, side: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The first frame of each class, its longest side scaled, and what is in it."""
    found = json.loads((folder / "annotations.json").read_text())
    numbers = {category["name"]: category["id"] for category in found["categories"]}
    files = {image["id"]: folder / "images" / Path(image["file_name"]).name for image in found["images"]}
    images, targets = [], []
    for label, name in enumerate(CLASSES):
        entry = next(entry for entry in found["annotations"] if entry["category_id"] == numbers[name])
        pixels = torch.from_numpy(read_image(files[entry["image_id"]])).permute(2, 0, 1)[None] / 255
        scale = side / max(pixels.shape)
        images.append(torch.nn.functional.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True)[0])
        x, y, width, height = (scale * value for value in entry["bbox"])
        boxes = torch.tensor([[x, y, x + width, y + height]])
        targets.append({"boxes": boxes, "labels": torch.tensor([label])})
    return images, targets


def test_a_few_steps_with_an_adapter_find_the_objects(kit: Path) -> None:
    torch.manual_seed(2)
    images, targets = frames(kit / "data" / "surveillance_lot_960", 320)
    checkpoint = kit / "weights" / "tf_efficientnet_lite0.safetensors"
    detector = create_detector(
        "retinanet", CLASSES, backbone="tf_efficientnet_lite0", checkpoint=checkpoint, size=320, data_config=HALF
    )
    vl.attach(detector.model, vl.LoRAConfig(exclude=detector.unused, unfreeze=detector.head))
    optimizer = torch.optim.AdamW([p for p in detector.model.parameters() if p.requires_grad], lr=3e-3)
    untrained = best_overlaps(detect(detector, images), targets)
    losses = []
    detector.model.train()
    for _ in range(40):
        loss = sum(detector.model(images, detector.to_model(targets)).values())
        losses.append(float(loss.detach()))  # type: ignore[union-attr]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    # the boxes still wander from step to step, and differently on every machine
    trained = best_overlaps(detect(detector, images), targets)
    assert sum(trained) > sum(untrained) + 0.4


def best_overlaps(outputs: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> list[float]:
    """For each image, its object's overlap with the best of the five surest boxes, 0 where none has its class."""
    best = []
    for output, target in zip(outputs, targets, strict=True):
        right = output["labels"][:5] == target["labels"][0]
        best.append(max(box_iou(output["boxes"][:5][right], target["boxes"])[:, 0].tolist(), default=0.0))
    return best
