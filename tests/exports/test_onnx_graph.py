"""What is in an exported graph, and for which shapes it holds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.layers import Conv2dSame

from helpers.tiny_models import MODELS
from visionlora.exports.onnx.folder import has_attention
from visionlora.exports.onnx.graph import batchnorms_after_convs, import_onnx, write_dense
from visionlora.exports.result import Exported
from visionlora.tasks.trained import load_trained

onnx, onnxruntime = import_onnx()

Export = Callable[[str, str], Exported]


def graph_of(result: Exported) -> Any:
    return onnx.load(result.out / "model.onnx")


@pytest.mark.parametrize("name", ["resnet", "fcos"])
def test_batchnorm_is_folded(name: str, exported: Export, adapter: Callable[[str], Path]) -> None:
    model = load_trained(adapter(name)).model
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert batchnorms_after_convs(graph_of(exported(name, "onnx"))) == 0


def test_batchnorm_that_is_not_folded_is_seen() -> None:
    helper = onnx.helper
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("BatchNormalization", ["y", "s", "b", "m", "v"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("BatchNormalization", ["r", "s", "b", "m", "v"], ["out"]),
    ]
    assert batchnorms_after_convs(helper.make_model(helper.make_graph(nodes, "g", [], []))) == 1


@pytest.mark.parametrize("name", ["resnet", "fcos"])
def test_the_file_is_one_and_says_nothing_of_this_machine(name: str, exported: Export) -> None:
    result = exported(name, "onnx")
    assert {path.name for path in result.out.iterdir()} - {"__pycache__"} == {"README.md", "model.onnx", "predict.py"}
    content = (result.out / "model.onnx").read_bytes()
    for word in (b"site-packages", b"/visionlora/", str(Path.home()).encode() + b"/", b"Traceback"):
        assert word not in content, word


@pytest.mark.parametrize("name", ["resnet", "fcos"])
def test_the_file_says_what_one_must_know(name: str, exported: Export) -> None:
    fields = {entry.key: entry.value for entry in graph_of(exported(name, "onnx")).metadata_props}
    tiny = MODELS[name]
    assert fields["task"] == tiny.task
    assert json.loads(fields["classes"]) == tiny.classes
    assert json.loads(fields["preprocessing"]) == tiny.preprocessing
    about = json.loads(fields["about"])
    assert about["model"]["checkpoint"] == "base.safetensors"
    if tiny.task == "detection":
        assert about["thresholds"] == dict.fromkeys(tiny.classes, 0.5)
        assert about["model_labels"] == [0, 1, 2]
    else:
        assert about["dynamic_size"] is True


@pytest.mark.parametrize(("name", "shape"), [("resnet", (5, 3, 96, 64)), ("unet", (3, 3, 50, 70))])
def test_batches_and_sizes_are_free(
    name: str, shape: tuple[int, ...], exported: Export, adapter: Callable[[str], Path]
) -> None:
    session = onnxruntime.InferenceSession(exported(name, "onnx").out / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    images = torch.randn(*shape)
    (found,) = session.run(None, {"images": images.numpy()})
    model = load_trained(adapter(name)).model
    with torch.no_grad():
        expected = model(images)
    assert np.allclose(found, expected.numpy(), atol=1e-4)


def test_what_has_attention_is_known() -> None:
    expected = {
        "test_resnet": False,
        "test_convnext": False,
        "test_vit": True,
        "davit_tiny": True,
        "swin_s3_tiny_224": True,
    }
    for name, has in expected.items():
        assert has_attention(timm.create_model(name)) is has, name
    assert has_attention(torchvision.models.vit_b_16()) is True


def test_a_model_of_one_size_has_a_free_batch(exported: Export, adapter: Callable[[str], Path]) -> None:
    session = onnxruntime.InferenceSession(exported("vit", "onnx").out / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, 64, 96]
    images = torch.randn(3, 3, 64, 96)
    (found,) = session.run(None, {"images": images.numpy()})
    model = load_trained(adapter("vit")).model
    with torch.no_grad():
        expected = model(images)
    assert np.allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["fcos", "mask_rcnn"])
def test_a_detector_takes_images_without_objects(name: str, exported: Export, adapter: Callable[[str], Path]) -> None:
    session = onnxruntime.InferenceSession(exported(name, "onnx").out / "model.onnx")
    assert session.get_inputs()[0].shape == [3, "height", "width"]
    trained = load_trained(adapter(name))
    for shape in ((3, 96, 96), (3, 40, 96)):
        blank = torch.zeros(shape)
        with torch.no_grad():
            expected = trained.model([blank])[0]
        boxes, _, scores, *masks = session.run(None, {"image": blank.numpy()})
        assert boxes.shape == tuple(expected["boxes"].shape)
        assert np.allclose(np.sort(scores), np.sort(expected["scores"].numpy()), atol=1e-4)
        assert not masks or masks[0].shape == tuple(expected["masks"].shape)


class FiveAxes(torch.nn.Module):
    """Attention within windows, as Hiera has it; the exporter takes fused attention of four axes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(3, 8, 4, stride=4)
        self.fused_attn = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.embed(images).unflatten(1, (2, 4)).flatten(3).transpose(2, 3)[:, None]  # (N, 1, heads, cells, 4)
        if self.fused_attn:
            return torch.nn.functional.scaled_dot_product_attention(x, x, x).mean(dim=(1, 3))
        return ((x @ x.mT / 2).softmax(dim=-1) @ x).mean(dim=(1, 3))


def test_fused_attention_of_five_axes_is_taken_apart_and_put_back(tmp_path: Path) -> None:
    model, image = FiveAxes().eval(), torch.rand(1, 3, 16, 16)
    fields = {"about": {}, "task": "classification"}
    with torch.no_grad():
        write_dense(model, image, tmp_path / "a.onnx", fields)
        expected = model(image)
    assert model.fused_attn is True
    _, onnxruntime = import_onnx()
    (found,) = onnxruntime.InferenceSession(str(tmp_path / "a.onnx")).run(None, {"images": image.numpy()})
    assert np.allclose(found, expected.numpy(), atol=1e-5)


def test_padding_that_depends_on_the_size_is_onnxs_own(tmp_path: Path) -> None:
    layers = []
    for width, options in ((3, {"stride": 2}), (8, {"kernel_size": 5, "stride": (2, 1)}), (8, {"dilation": 2})):
        convolution = Conv2dSame(width, 8, **{"kernel_size": 3, "bias": width == 3, **options})
        layers += [convolution, torch.nn.BatchNorm2d(8), torch.nn.ReLU6()]
    model = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    write_dense(model.eval(), torch.rand(1, 3, 64, 64), tmp_path / "a.onnx", {"about": {}, "task": "classification"})
    graph = onnx.load(tmp_path / "a.onnx")
    assert batchnorms_after_convs(graph) == 0
    assert "Pad" not in {node.op_type for node in graph.graph.node}
    assert all("forward" not in vars(module) for module in model.modules())
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for shape in ((1, 3, 64, 64), (2, 3, 51, 90)):
        images = torch.rand(shape)
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            assert np.allclose(found, model(images).numpy(), atol=1e-5)
