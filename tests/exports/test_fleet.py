"""A fleet's cameras in one ONNX file: each gives what its own adapted model gives, chosen by an index."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import is_factor
from helpers.fleets import difference, one_by_one, save_cameras
from helpers.tiny_models import MODELS, make_adapter
from visionlora.data.images import read_image
from visionlora.errors import InputError
from visionlora.exports.fleet import export_fleet
from visionlora.exports.onnx.bank import banked
from visionlora.exports.opening import open_trained
from visionlora.fleet.registry import add
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained

pytest.importorskip("onnxruntime")

Adapter = Callable[[str], Path]


def another(file: Path, out: Path, **config: Any) -> Path:
    """An adapter of two classes and another rank over the base of a file."""
    trained = load_trained(file, base=True)
    model: Any = trained.model
    head = model.get_classifier()
    names = [name for name, module in model.named_modules() if module is head]
    torch.manual_seed(1)
    model.set_submodule(names[0], nn.Linear(head.in_features, 2))
    vl.attach(model, vl.LoRAConfig(**{"rank": 3, "unfreeze": names, **config}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_factor(name) and "lora_B" in name:
                parameter.normal_(std=0.005)
            elif parameter.requires_grad and ".bn" in name:
                parameter.mul_(1.1)
    header = vl.read_header(file)
    vl.save_adapter(model, out, classes=["cat", "dog"], preprocessing=header.preprocessing, extra=header.extra)
    return out


class Net(nn.Module):
    """Every kind of bank: a grouped convolution, its BatchNorm, a linear layer on several rows of an image, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.BatchNorm2d(8)
        self.mix, self.head = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.norm(self.conv(x)).relu().flatten(2).mT).mean(1))


def test_every_kind_of_layer_has_a_bank(tmp_path: Path) -> None:
    base = Net().eval()
    config = {"unfreeze": ["head", "norm"], "batchnorm": "train"}
    fleet = vl.Fleet(
        base, save_cameras(base, tmp_path, config, {**config, "rank": 3}, {"targets": ["conv"]}, scale=0.3)
    )
    images, cameras = torch.randn(4, 4, 9, 9), ["camera2", "camera0", "camera1", "camera0"]
    expected = torch.cat(one_by_one(fleet, images, cameras))
    camera = torch.tensor([fleet.cameras.index(name) for name in cameras])
    assert difference(banked(fleet, images)(images, camera), expected) < 1e-5


def test_every_camera_is_in_the_file(adapter: Adapter, images: Path, tmp_path: Path) -> None:
    fleet, first = tmp_path / "fleet", adapter("resnet")
    second = another(first, tmp_path / "second.safetensors", batchnorm="train")
    add(fleet, "gate", first)
    add(fleet, "yard", second)
    result = export_fleet(fleet, tmp_path / "out", [images])
    assert list(result.differences) == ["gate", "yard"] and max(result.differences.values()) < 1e-4
    # The file beside the model, without visionlora.
    code = (
        "import json, sys; from predict import Model\n"
        "print(json.dumps([Model('model.onnx', camera=c)(sys.argv[1]) for c in ('gate', 'yard')]))"
    )
    image = sorted(images.iterdir())[0]
    command = [sys.executable, "-c", code, str(image)]
    found = json.loads(subprocess.run(command, cwd=tmp_path / "out", capture_output=True, check=True, text=True).stdout)
    for answer, file in zip(found, (first, second), strict=True):
        trained: Any = load_trained(file)
        logits = trained.model(task_of("classification").to_input(read_image(image), trained.preprocessing)[None])[0]
        expected = dict(zip(trained.classes, logits.softmax(0).tolist(), strict=True))
        assert answer.keys() == expected.keys()
        assert np.allclose([answer[key] for key in expected], list(expected.values()), atol=1e-4)
    with pytest.raises(InputError, match="a fleet's cameras"):
        open_trained(tmp_path / "out")


def test_what_can_not_be_in_one_graph_is_refused(adapter: Adapter, tmp_path: Path) -> None:
    first = adapter("resnet")
    for number, (file, words) in enumerate(
        (
            (another(first, tmp_path / "d.safetensors", method="dora"), "DoRA on .* no sum of factors"),
            (another(first, tmp_path / "n.safetensors", unfreeze=["fc", "layer4.0.conv1"]), "has no bank in one graph"),
        )
    ):
        fleet = tmp_path / f"fleet_{number}"
        add(fleet, "gate", first)
        add(fleet, "yard", file)
        with pytest.raises(InputError, match=words):
            export_fleet(fleet, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    add(tmp_path / "pooled", "gate", adapter("vit"))
    with pytest.raises(InputError, match=r"'attn_pool\.q' can only be computed one camera after the other"):
        export_fleet(tmp_path / "pooled", tmp_path / "out")
    add(tmp_path / "segmenters", "gate", make_adapter(tmp_path / "unet", MODELS["unet"]))
    with pytest.raises(InputError, match="are segmenters, and only classifiers"):
        export_fleet(tmp_path / "segmenters", tmp_path / "out")
