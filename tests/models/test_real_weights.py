"""Real weights classify real photos (kit)."""

from pathlib import Path

import pytest
import torch
from timm.data import ImageNetInfo

from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.data.images import read_image
from visionlora.models.classifier import create_classifier

HALF = (0.5, 0.5, 0.5)
SETTINGS = {
    "vit_tiny_patch16_224": {"mean": HALF, "std": HALF, "crop_pct": 224 / 248, "interpolation": "bicubic"},
    "tf_efficientnet_lite0": {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "crop_pct": 224 / 256},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_real_weights_classify_photos(kit: Path, name: str) -> None:
    photos = sorted((kit / "data" / "imagenet_samples_256").glob("n*.jpg"))[::25]
    assert len(photos) == 40
    checkpoint = kit / "weights" / f"{name}.safetensors"
    created = create_classifier(name, 1000, checkpoint=checkpoint, data_config=SETTINGS[name])
    transform = eval_transform(Preprocessing.from_timm(created.data_config))
    images = torch.stack([transform(read_image(photo)) for photo in photos])
    with torch.inference_mode():
        predicted = created.model.eval()(images).argmax(dim=1).tolist()
    wnids = ImageNetInfo().label_names()
    right = sum(photo.name.startswith(wnids[index]) for photo, index in zip(photos, predicted, strict=True))
    assert right >= 30  # 83% and 88% of all thousand


@pytest.mark.parametrize("name", SETTINGS)
def test_real_weights_keep_their_body_under_a_new_head(kit: Path, name: str) -> None:
    checkpoint = kit / "weights" / f"{name}.safetensors"
    whole = create_classifier(name, 1000, checkpoint=checkpoint).model.eval()
    fresh = create_classifier(name, 2, checkpoint=checkpoint).model.eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(whole.forward_features(image), fresh.forward_features(image))  # type: ignore[operator]
