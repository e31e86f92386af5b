"""A convolution and its two gradients, each by the quickest of several equal ways on a CPU.

oneDNN's kernels have blind spots in the usual memory format (measured in float32, the first two with two AVX-512
cores, the third with two AVX2 ones): a 1 x 1 convolution as a plain matrix product takes 0.7 of its time, the input's
gradient of a strided one 0.2 to 0.7, and the weight's gradient of a depthwise 5 x 5 one 0.15 to 0.67, copied to
channels_last. On other devices, and in channels_last where the kernels are good, torch's own are called.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.ops.geometry import Geometry
from visionlora.ops.weight import is_channels_last


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """x (N, Cin, ...) and kernel (Cout, Cin / groups, ...) -> (N, Cout, ...)."""
    stride, padding, dilation, groups = geometry
    if _is_matrix_product(x, kernel, geometry):
        pixels = take_every(x, stride)
        return _spatial(_product(kernel.flatten(1), pixels.flatten(2), bias), pixels)
    return torch.convolution(x, kernel, bias, stride, padding, dilation, False, [0] * len(stride), groups)


def plain_convolution(x: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``convolve`` as plain layers do it, under autocast too (on a CPU it overlooks torch.convolution)."""
    function = (F.conv1d, F.conv2d, F.conv3d)[kernel.dim() - 3]
    output: Tensor = function(x, kernel, bias, *geometry)
    return output


def input_gradient(g: Tensor, x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    """Gradient of ``convolve``'s x, from that of its output, g (N, Cout, ...).

    Of ``x`` only shape and memory format count; it may hold anything.
    """
    stride = geometry.stride
    strided = any(step > 1 for step in stride)
    if _is_matrix_product(g, kernel, geometry) or (strided and g.is_cpu and geometry.is_pointwise(kernel)):
        if is_channels_last(g):
            taken = (_pixel_rows(g) @ kernel.flatten(1)).view(*(g.shape[i] for i in (0, 2, 3)), -1).permute(0, 3, 1, 2)
        else:
            taken = _spatial(_product(kernel.flatten(1).t(), g.flatten(2), None), g)
        if not strided:
            return taken
        grad = torch.zeros_like(x, dtype=g.dtype)
        take_every(grad, stride).copy_(taken)
        return grad
    return _convolution_backward(g, x, kernel, geometry, which=0)


def weight_gradient(x: Tensor, g: Tensor, kernel_shape: torch.Size, geometry: Geometry) -> Tensor:
    """Gradient of ``convolve``'s kernel, from its x and the gradient of its output, g (N, Cout, ...)."""
    kernel = g.new_empty(kernel_shape)
    if _is_matrix_product(x, kernel, geometry) and _is_matrix_product(g, kernel, geometry):
        pixels = take_every(x, geometry.stride).flatten(2)  # (N, Cin, P)
        return torch.bmm(g.flatten(2), pixels.transpose(1, 2)).sum(0).view(kernel_shape)
    if _is_slow_depthwise(x, kernel, geometry):
        x, g = (each.contiguous(memory_format=torch.channels_last) for each in (x, g))
    return _convolution_backward(g, x, kernel, geometry, which=1)


def take_every(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The pixels on which a strided pointwise convolution stands."""
    for dim, step in enumerate(stride, start=2):
        if step > 1:
            x = x[(slice(None),) * dim + (slice(None, None, step),)]
    return x


def _is_matrix_product(x: Tensor, kernel: Tensor, geometry: Geometry) -> bool:
    return x.is_cpu and geometry.is_pointwise(kernel) and not is_channels_last(x)


def _is_slow_depthwise(x: Tensor, kernel: Tensor, geometry: Geometry) -> bool:
    depthwise = geometry.groups == x.shape[1] == kernel.shape[0]
    return x.is_cpu and depthwise and kernel.dim() == 4 and max(kernel.shape[2:]) > 3 and not is_channels_last(x)


def _product(matrix: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    """(m, k) by (N, k, P), plus bias (m,) -> (N, m, P)."""
    batch = matrix.expand(len(columns), -1, -1)
    if bias is None:
        return torch.bmm(batch, columns)
    return torch.bmm(batch, columns).add_(bias[:, None])


def _spatial(columns: Tensor, like: Tensor) -> Tensor:
    """(N, C, P) -> (N, C, ...) with the spatial sizes of ``like``."""
    # Not as a view: an output that is one can't be changed in place, as the next ReLU does.
    spatial: Tensor = torch.ops.aten._unsafe_view(columns, [*columns.shape[:2], *like.shape[2:]])
    return spatial


def _pixel_rows(x: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last -> (N * H * W, C), no copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _convolution_backward(g: Tensor, x: Tensor, kernel: Tensor, geometry: Geometry, which: int) -> Tensor:
    stride, padding, dilation, groups = geometry
    mask = [index == which for index in range(3)]
    gradients = torch.ops.aten.convolution_backward(
        g, x, kernel, None, stride, padding, dilation, False, [0] * len(stride), groups, mask
    )
    gradient: Tensor = gradients[which]
    return gradient
