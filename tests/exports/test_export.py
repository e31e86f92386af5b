"""What leaves the house computes what the adapted model computes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.tiny_models import MODELS
from visionlora.data.images import read_image
from visionlora.exports.opening import open_trained
from visionlora.exports.result import Exported
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained

CASES = [
    ("resnet", "timm"),
    ("resnet", "onnx"),
    ("many", "timm"),
    ("vit", "timm"),
    ("vit", "onnx"),
    ("shufflenet", "torchvision"),
    ("fcos", "torchvision"),
    ("fcos", "onnx"),
    ("fcos", "onnx-heads"),
    ("mask_rcnn", "onnx"),
    ("retinanet_vit", "onnx"),
    ("retinanet_vit", "onnx-heads"),
    ("ssdlite", "torchvision"),
    ("ssdlite", "onnx"),
    ("ssdlite", "onnx-heads"),
    ("unet", "torchvision"),
    ("linear_vit", "onnx"),
    ("lraspp", "torchvision"),
]

Export = Callable[[str, str], Exported]


@pytest.mark.parametrize(("name", "to"), CASES)
def test_the_exported_model_computes_what_the_adapted_one_does(
    name: str, to: str, exported: Export, adapter: Callable[[str], Path], images: Path
) -> None:
    result, kind = exported(name, to), task_of(MODELS[name].task)
    adapted = load_trained(adapter(name), merged=False)
    base = load_trained(adapter(name), base=True)
    loaded = open_trained(result.out)
    assert (loaded.task, loaded.classes) == (adapted.task, adapted.classes)
    assert loaded.preprocessing == adapted.preprocessing
    changed = 0.0
    with torch.no_grad():
        for path in sorted(images.iterdir()):
            seen = kind.to_input(read_image(path), adapted.preprocessing)
            expected = kind.run(adapted.model, seen)
            assert kind.difference(kind.run(loaded.model, seen), expected, seen, base.model) <= 1e-4
            changed = max(changed, kind.difference(kind.run(base.model, seen), expected, seen, base.model))
    assert changed > 1e-2, "the adapter changes nothing, so this test shows nothing"
    assert result.difference <= 1e-4
    assert "4 given images" in result.compared


@pytest.mark.parametrize(("name", "to"), [("resnet", "timm"), ("resnet", "onnx")])
def test_what_is_said_of_the_file_is_true(name: str, to: str, exported: Export) -> None:
    result = exported(name, to)
    content = (result.out / result.file).read_bytes()
    assert (result.bytes, result.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert list(result.seconds) == ["base", "adapted", "merged", "exported"]
    assert all(value > 0 for value in result.seconds.values())
    assert result.ratios()["base"] == 1
    card = (result.out / "README.md").read_text()
    assert result.sha256 in card
    assert result.compared in card
