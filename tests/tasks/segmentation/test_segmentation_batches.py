"""The classes of an image's pixels don't depend on the images beside it."""

from typing import Any

import numpy as np
import pytest
import torch

from helpers.tiny_segmenters import CLASSES, create, settle
from helpers.tiny_segmenters import images as noise
from visionlora.data.segmentation.transforms import whole_image
from visionlora.models.segmenter import Segmenter
from visionlora.tasks.segmentation.inference import SegmenterInput, over_windows, segment

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((64, 96), (33, 96), (96, 96), (96, 40), (64, 96), (20, 96), (33, 96), (50, 70))
"""Height and width; two of them twice, with others between."""
CASES: list[tuple[str, dict[str, Any]]] = [
    ("fpn", {"backbone": "test_efficientnet"}),
    ("deeplabv3plus", {"backbone": "test_resnet"}),
    ("multilevel", {"backbone": "test_vit"}),
    ("lraspp_mobilenet_v3_large", {}),
]


@pytest.fixture(scope="module", params=CASES, ids=[f"{name}-{options.get('backbone')}" for name, options in CASES])
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    """Not to be changed."""
    torch.manual_seed(0)
    name, options = request.param
    made = create(name, **options)
    settle(made.model, noise(4, 64, 96))
    made.model.eval()
    return made


def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.mark.parametrize("window", [None, 48], ids=["whole", "windows"])
def test_pixels_get_what_they_get_alone(segmenter: Segmenter, window: int | None) -> None:
    shown = SegmenterInput(96, MEAN, STD, window, 16 if window else 0)
    images = pictures()
    alone = [segment(segmenter.model, [image], shown, CPU, batch_size=1)[0] for image in images]
    assert len({label for mask in alone for label in np.unique(mask)}) == len(CLASSES)
    for batch_size in (3, 8):
        found = segment(segmenter.model, images, shown, CPU, batch_size)
        # A pixel whose best two classes are level may go either way.
        assert all(np.mean(mask != other) < 1e-3 for mask, other in zip(found, alone, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 48], ids=["whole", "windows"])
def test_logits_in_a_batch_are_those_alone(segmenter: Segmenter, window: int | None) -> None:
    shown = SegmenterInput(96, MEAN, STD, window, 16 if window else 0)
    predictor = over_windows(segmenter.model, shown)
    images = [image for image in pictures() if image.shape[:2] == (64, 96)] * 2
    batch = torch.stack([whole_image(image, 96, MEAN, STD) for image in images])
    alone = torch.cat([predictor(image[None]) for image in batch])
    torch.testing.assert_close(predictor(batch), alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))
