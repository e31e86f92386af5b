"""Segmenters over real weights, on real street scenes (kit)."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import visionlora as vl
from visionlora.data.images import read_image
from visionlora.models.classifier import create_classifier
from visionlora.models.segmenter import create_segmenter

CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
VOID = 11
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.mark.parametrize(("name", "backbone"), [("fpn", "tf_efficientnet_lite0"), ("linear", "vit_tiny_patch16_224")])
def test_a_segmenters_backbone_computes_what_the_classifier_does(kit: Path, name: str, backbone: str) -> None:
    checkpoint = kit / "weights" / f"{backbone}.safetensors"
    body: Any = create_segmenter(name, CLASSES, backbone=backbone, checkpoint=checkpoint).model.backbone
    whole: Any = create_classifier(backbone, 1000, checkpoint=checkpoint).model
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(body.eval().forward_features(image), whole.eval().forward_features(image), atol=1e-4)


def scenes(folder: Path, number: int) -> tuple[Tensor, Tensor]:
    """Normalised images (N, 3, 120, 160) and classes (N, 120, 160)."""
    images, masks = [], []
    for file in sorted((folder / "train").iterdir())[:: 367 // number][:number]:
        pixels = torch.from_numpy(read_image(file)).permute(2, 0, 1)[None] / 127.5 - 1
        images.append(F.interpolate(pixels, (120, 160), mode="bilinear", antialias=True))
        with Image.open(folder / "trainannot" / f"{file.stem}.png") as mask:
            masks.append(
                torch.tensor(list(mask.resize((160, 120), Image.Resampling.NEAREST).tobytes())).view(1, 120, 160)
            )
    return torch.cat(images), torch.cat(masks)


@pytest.mark.parametrize(
    ("name", "backbone"), [("fpn", "tf_efficientnet_lite0"), ("multilevel", "vit_tiny_patch16_224")]
)
def test_a_few_steps_with_an_adapter_find_the_classes(kit: Path, name: str, backbone: str) -> None:
    images, masks = scenes(kit / "data" / "camvid_jpg", 2)
    checkpoint = kit / "weights" / f"{backbone}.safetensors"
    segmenter = create_segmenter(name, CLASSES, backbone=backbone, checkpoint=checkpoint, data_config=HALF)
    model = segmenter.model
    vl.attach(model, vl.LoRAConfig(exclude=segmenter.unused, unfreeze=segmenter.head))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)

    def share_found() -> Tensor:
        with torch.no_grad():
            found = model.eval()(images).argmax(dim=1)
        return (found == masks)[masks != VOID].float().mean()

    untrained = share_found()
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(model.train()(images), masks, ignore_index=VOID)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] < 3.0, "ln 11 is 2.4"
    assert losses[-1] < 0.6 * losses[0]
    assert share_found() > untrained + 0.3
