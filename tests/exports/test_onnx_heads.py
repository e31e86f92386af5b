"""Raw heads and NumPy find what torchvision finds, for any number of images of any size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.ops import batched_nms

from visionlora.errors import InputError
from visionlora.exports.export import export
from visionlora.exports.images import generated_images
from visionlora.exports.onnx.graph import batchnorms_after_convs, import_onnx
from visionlora.exports.onnx.shipped.heads import _boxes, _suppressed, on_canvas
from visionlora.exports.opening import open_trained
from visionlora.exports.result import Exported
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained

Export = Callable[[str, str], Exported]
Adapter = Callable[[str], Path]
KIND = task_of("detection")


def picture(height: int, width: int, seed: int = 5) -> torch.Tensor:
    image = Image.fromarray(generated_images(1, seed)[0]).resize((width, height))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("name", ["fcos", "retinanet_vit", "ssdlite"])
def test_images_go_through_together(name: str, exported: Export, adapter: Adapter) -> None:
    plain = load_trained(adapter(name)).model
    heads = open_trained(exported(name, "onnx-heads").out).model
    images = [picture(72, 96, seed) for seed in (1, 2, 3)]
    with torch.no_grad():
        expected = [KIND.run(plain, image) for image in images]
        found = heads(images)
    assert min(len(one["scores"]) for one in expected) > 2
    for image, one, other in zip(images, found, expected, strict=True):
        assert KIND.difference(one, other, image, plain) <= 1e-4


@pytest.mark.parametrize("name", ["fcos", "retinanet_vit", "ssdlite"])
@pytest.mark.parametrize("shape", [(96, 96), (96, 31), (60, 96), (2, 96)])
def test_any_shape_fits(name: str, shape: tuple[int, int], exported: Export, adapter: Adapter) -> None:
    plain = load_trained(adapter(name)).model
    heads = open_trained(exported(name, "onnx-heads").out).model
    image = picture(*shape)
    with torch.no_grad():
        assert KIND.difference(KIND.run(heads, image), KIND.run(plain, image), image, plain) <= 1e-4


@pytest.mark.parametrize("name", ["fcos", "ssdlite"])
def test_the_graph_ends_before_the_suppression(name: str, exported: Export) -> None:
    onnx, _ = import_onnx()
    graph = onnx.load(exported(name, "onnx-heads").out / "model.onnx")
    kinds = {node.op_type for node in graph.graph.node}
    assert not kinds & {"NonMaxSuppression", "TopK", "Loop", "If", "RoiAlign"}
    assert batchnorms_after_convs(graph) == 0
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mask_rcnn", r"detectors of one stage \(RetinaNet, FCOS, SSD\), and mask_rcnn has two; take --to onnx"),
        ("unet", "--to onnx-heads is for detectors, and unet is for segmentation; take --to onnx"),
    ],
)
def test_what_has_no_such_heads_is_refused(name: str, message: str, adapter: Adapter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(adapter(name), "onnx-heads", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_suppression_is_torchvisions(threshold: float) -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 50, (400, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0, 30, (400, 2))], axis=1).astype(np.float32)
    boxes[:20, 2:] = boxes[:20, :2]  # empty ones
    scores = generator.permutation(400).astype(np.float32) / 400
    labels = generator.integers(0, 3, 400)
    expected = batched_nms(*(torch.from_numpy(array) for array in (boxes, scores, labels)), threshold)
    assert 3 < len(expected) < 400 or threshold == 1
    assert _suppressed(boxes, labels, scores, threshold, 400).tolist() == expected.tolist()
    assert _suppressed(boxes, labels, scores, threshold, 3).tolist() == expected[:3].tolist()


def test_nothing_found_is_no_error(exported: Export) -> None:
    heads = open_trained(exported("fcos", "onnx-heads").out).model
    heads.about = {**heads.about, "score_thresh": 2.0}
    (found,) = heads([torch.zeros(3, 96, 96)])
    assert [tuple(found[name].shape) for name in ("boxes", "labels", "scores")] == [(0, 4), (0,), (0,)]


def test_the_canvas_is_the_mean_colour_outside_the_image() -> None:
    canvas = on_canvas([np.ones((3, 5, 32), np.float32)], {"multiple": 32, "mean": [0.1, 0.2, 0.3]})
    assert canvas.shape == (1, 3, 32, 32)
    assert (canvas[0, :, :5] == 1).all()
    assert canvas[0, :, 5:].reshape(3, -1).mean(axis=1) == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_boxes_are_decoded_as_torchvision_does(weights: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, generator=generator) * 100
    anchors = torch.cat([corners, corners + 1 + torch.rand(200, 2, generator=generator) * 50], dim=1)
    deltas = torch.randn(200, 4, generator=generator) * 3
    deltas[:10, 2:] = 60  # torchvision limits what a box may grow by
    expected = BoxCoder(weights).decode_single(deltas, anchors).numpy()
    found = _boxes(deltas.numpy(), anchors.numpy(), {"family": "retinanet", "weights": weights})
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-3)
    linear = BoxLinearCoder(normalize_by_size=True).decode(deltas, anchors).numpy()
    assert np.allclose(_boxes(deltas.numpy(), anchors.numpy(), {"family": "fcos"}), linear, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", ["fcos", "retinanet_vit", "ssdlite"])
@pytest.mark.parametrize(
    ("setting", "value"),
    [("score_thresh", 0.0), ("nms_thresh", 0.02), ("topk_candidates", 7), ("detections_per_img", 5)],
)
def test_each_setting_means_what_it_means_to_torchvision(
    name: str, setting: str, value: float, exported: Export, adapter: Adapter
) -> None:
    plain: Any = load_trained(adapter(name)).model
    heads = open_trained(exported(name, "onnx-heads").out).model
    image = picture(80, 96)
    with torch.no_grad():
        before = KIND.run(plain, image)
        if setting == "score_thresh":
            value = float(before["scores"].median()) + 1e-3
        setattr(plain, setting, value)
        heads.about = {**heads.about, setting: value}
        expected = KIND.run(plain, image)
        changed = KIND.difference(expected, before, image, plain)
        assert changed > 1e-4, "the setting changes nothing, so this test shows nothing"
        assert KIND.difference(KIND.run(heads, image), expected, image, plain) <= 1e-4
