"""Layers with a low-rank update whose ``A`` does not train: r channels of the input are kept instead of the input.

All that the backward of ``B`` needs of the input is ``z = A x``, which the forward computes (Zhang et al. 2023,
arXiv:2308.03303). The gradient of the input needs the weight only.
"""

from typing import Any

import torch
from torch import Tensor

from visionlora.ops.autocast import outside_autocast
from visionlora.ops.conv import conv, outer
from visionlora.ops.convolution import convolve, input_gradient
from visionlora.ops.geometry import Geometry
from visionlora.ops.linear import product, rows_of
from visionlora.ops.narrow import times_narrow, times_narrow_rows
from visionlora.ops.weight import PassingWeight, is_channels_last


def fixed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor) -> Tensor:
    """``F.linear(x, weight + B @ A, bias)``; of ``A`` and ``weight`` there are no gradients. Autocast is respected.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,) or None.
        A: (r, in).
        B: (out, r).

    Returns:
        (..., out).
    """
    return outside_autocast(_FixedLinear.apply, x, weight, bias, A, B)


def fixed_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    geometry: Geometry,
    row_scale: Tensor | None = None,
) -> Tensor:
    """A convolution with the kernel ``row_scale * (weight + B @ A)``; only x, ``bias`` and ``B`` get gradients.

    Args:
        x: (N, Cin, ...).
        weight: (Cout, Cin / groups, ...).
        bias: (Cout,) or None; not scaled.
        A: (r, Cin / groups, ...).
        B: (Cout, r).
        geometry: stride, padding, dilation, groups.
        row_scale: (Cout,), or None for ones.

    Returns:
        (N, Cout, ...).
    """
    if geometry.groups * len(A) >= x.shape[1]:  # r channels of each group would be no less than the input
        return conv(x, weight, bias, A, B, geometry, row_scale)
    return outside_autocast(_FixedConv.apply, x, weight, bias, A, B, geometry, row_scale)


class _FixedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor) -> Tensor:
        ctx.save_for_backward(times_narrow(rows_of(x), A.to(x.dtype)), weight, A, B)
        with PassingWeight(weight, A, B) as adapted:
            return product(x, adapted.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, A, B = ctx.saved_tensors
        needs_x, _, needs_bias, _, needs_B = ctx.needs_input_grad
        grad_x = grad_B = None
        if needs_x:
            with PassingWeight(weight, A, B) as adapted:
                grad_x = g @ adapted.to(g.dtype)
        g = rows_of(g)  # (rows, out)
        if needs_B:
            grad_B = times_narrow_rows(g, z).to(B.dtype)
        return grad_x, None, g.sum(0) if needs_bias else None, None, grad_B


class _FixedConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        A: Tensor,
        B: Tensor,
        geometry: Geometry,
        row_scale: Tensor | None,
    ) -> Tensor:
        ctx.geometry, ctx.shape, ctx.channels_last = geometry, x.shape, is_channels_last(x)
        per_group = A.repeat(geometry.groups, *[1] * (A.dim() - 1))  # (groups * r, Cin / groups, ...)
        z = convolve(x, per_group.to(x.dtype), None, geometry)  # (N, groups * r, ...)
        ctx.save_for_backward(z, weight, A, B, row_scale)
        with PassingWeight(weight, A, B, row_scale) as kernel:
            return convolve(x, kernel.to(x.dtype), None if bias is None else bias.to(x.dtype), geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, A, B, row_scale = ctx.saved_tensors
        needs_x, _, needs_bias, _, needs_B, *_ = ctx.needs_input_grad
        format = torch.channels_last if ctx.channels_last else torch.contiguous_format
        g = g.contiguous(memory_format=format)
        grad_x = grad_B = None
        if needs_x:
            like = torch.empty(ctx.shape, dtype=g.dtype, device=g.device, memory_format=format)
            with PassingWeight(weight, A, B, row_scale) as kernel:
                grad_x = input_gradient(g, like, kernel.to(g.dtype), ctx.geometry)
        if needs_B:
            grad_B = outer(z, g, ctx.geometry.groups).to(B.dtype)
            grad_B = grad_B if row_scale is None else row_scale[:, None] * grad_B
        grad_bias = g.sum([0, *range(2, g.dim())]) if needs_bias else None
        return grad_x, None, grad_bias, None, grad_B, None, None
