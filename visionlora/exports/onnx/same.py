"""TensorFlow's "same" padding for torch's ONNX exporter.

timm works it out from the image's size. With sizes left open the exporter follows that sum through every layer, each on
top of the last, for minutes; ONNX's convolution knows this padding by name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.conv2d_same import conv2d_same
from torch import Tensor, nn


@torch.library.custom_op("visionlora::conv2d_same", mutates_args=())
def _conv2d_same(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], dilation: list[int], groups: int
) -> Tensor:
    return conv2d_same(x, weight, bias, (stride[0], stride[1]), (0, 0), (dilation[0], dilation[1]), groups)


@_conv2d_same.register_fake
def _shape(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], dilation: list[int], groups: int
) -> Tensor:
    del bias, dilation, groups
    height, width = ((side + step - 1) // step for side, step in zip(x.shape[2:], stride, strict=True))
    return x.new_empty(x.shape[0], weight.shape[0], height, width)


@contextmanager
def same_padding(model: nn.Module) -> Iterator[dict[Callable[..., Any], Callable[..., Any]]]:
    """Within the block ``model`` computes with an operation that the exporter can be told of.

    Yields:
        what ``torch.onnx.export`` takes as ``custom_translation_table``.
    """
    layers: list[Any] = [module for module in model.modules() if type(module) is Conv2dSame]
    for layer in layers:
        if set(layer.dilation) == {1}:
            layer.forward = partial(_known_by_name, layer)
        elif set(layer.stride) == {1}:
            layer.forward = partial(_same_for_all_sizes, layer)
    try:
        yield {torch.ops.visionlora.conv2d_same.default: _translated}
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _known_by_name(layer: Any, x: Tensor) -> Tensor:
    result: Tensor = _conv2d_same(x, layer.weight, layer.bias, list(layer.stride), list(layer.dilation), layer.groups)
    return result


def _same_for_all_sizes(layer: Any, x: Tensor) -> Tensor:
    """onnxruntime has no such padding with dilation, but without strides it is the same for all sizes."""
    tall, wide = (step * (side - 1) for side, step in zip(layer.kernel_size, layer.dilation, strict=True))
    padded = F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
    return F.conv2d(padded, layer.weight, layer.bias, dilation=layer.dilation, groups=layer.groups)


def _translated(x: Any, weight: Any, bias: Any, stride: Any, dilation: Any, groups: int) -> Any:
    from onnxscript import opset20 as op

    return op.Conv(x, weight, bias, auto_pad="SAME_UPPER", strides=stride, dilations=dilation, group=groups)
