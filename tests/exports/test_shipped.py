"""predict.py prepares images as visionlora does, to the last bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from helpers.tiny_models import write_image
from visionlora.data.classification.transforms import CROP_MODES, INTERPOLATIONS, Preprocessing, eval_transform
from visionlora.data.detection.transforms import DetectionEvalTransform
from visionlora.data.images import read_image
from visionlora.data.segmentation.transforms import whole_image
from visionlora.exports.onnx.shipped import predict as standalone

SIZES = [(97, 64), (64, 97), (50, 50), (31, 200), (33, 20), (640, 40)]


def picture(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)


@pytest.mark.parametrize("mode", CROP_MODES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("shape", "crop_pct"), [((32, 32), 0.875), ((32, 32), 1.3), ((24, 45), 1.0)])
def test_a_classifiers_input_is_the_same(
    mode: str, interpolation: str, shape: tuple[int, int], crop_pct: float
) -> None:
    pre = Preprocessing(*shape, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), interpolation, crop_pct, mode)
    for size in SIZES:
        expected = eval_transform(pre)(picture(size)).numpy()
        assert np.array_equal(standalone.to_input(picture(size), pre.to_dict()), expected), size


@pytest.mark.parametrize("side", [48, 96, 500])
def test_a_detectors_and_a_segmenters_input_is_the_same(side: int) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    for size in SIZES:
        expected = DetectionEvalTransform(side)(picture(size), ())[0].numpy()
        assert np.array_equal(standalone.to_input(picture(size), {"size": side}), expected), size
        expected = whole_image(picture(size), side, mean, std).numpy()
        found = standalone.to_input(picture(size), {"size": side, "mean": mean, "std": std})
        assert np.array_equal(found, expected), size


def test_files_are_read_the_same(tmp_path: Path) -> None:
    write_image(tmp_path / "plain.jpg")
    with Image.open(tmp_path / "plain.jpg") as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "turned.jpg", exif=exif)
        image.convert("P").save(tmp_path / "palette.png")
        image.convert("L").save(tmp_path / "grey.png")
        image.convert("RGBA").save(tmp_path / "alpha.png")
    deep = (np.arange(5000, dtype=np.uint32) * 13 % 65536).astype(np.uint16).reshape(50, 100)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(standalone.read_image(path), read_image(path)), path.name


@pytest.mark.parametrize("size", [(7, 9), (3, 50), (40, 21), (1, 1)])
def test_maps_are_resized_as_torch_does(size: tuple[int, int]) -> None:
    maps = torch.randn(3, 10, 14)
    expected = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    assert np.allclose(standalone.resize(maps.numpy(), *size), expected.numpy(), atol=1e-5)


def test_models_that_look_at_windows_are_left_to_visionlora() -> None:
    for values in ({"size": 96, "tile": 32}, {"size": 96, "tile": None, "window": 48}):
        with pytest.raises(ValueError, match="use visionlora predict"):
            standalone.to_input(picture((50, 50)), values)
