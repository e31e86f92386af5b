"""A convolution with a low-rank update of its kernel, fused."""

import math
from typing import Any

import torch
from torch import Tensor

from visionlora.ops.autocast import outside_autocast
from visionlora.ops.convolution import convolve, input_gradient, take_every, weight_gradient
from visionlora.ops.cost import Route, conv_route
from visionlora.ops.geometry import Geometry
from visionlora.ops.kept import Kept, asking, kept_for, scale_gradient
from visionlora.ops.narrow import narrow_times, times_narrow, times_narrow_rows
from visionlora.ops.recompute import Recall
from visionlora.ops.weight import PassingWeight, is_channels_last, row_products


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    geometry: Geometry,
    row_scale: Tensor | None = None,
    unit_rows: bool = False,
    route: Route = "auto",
    recall: Recall | None = None,
) -> Tensor:
    """A 1-d, 2-d or 3-d convolution with the kernel ``row_scale * (weight + B @ A)``; autocast is respected.

    Args:
        x: (N, Cin, ...).
        weight: (Cout, Cin / groups, ...), frozen: it gets no gradient.
        bias: (Cout,) or None; not scaled.
        A: (r, Cin / groups, ...).
        B: (Cout, r).
        geometry: stride, padding, dilation, groups.
        row_scale: (Cout,), for a BatchNorm that is folded in, or an adapter that has one.
        unit_rows: divide the rows of ``weight + B @ A`` by their norms first, which count as constants.
        route: how the factors' gradients are computed: through r channels (``"factored"``), from the
            gradient of the whole kernel (``"dense"``), or whichever the cost model says (``"auto"``).
        recall: how to make ``x`` again in the backward instead of keeping it.

    Returns:
        (N, Cout, ...).
    """
    kept = kept_for(row_scale)
    arguments = (weight, bias, A, B, row_scale, unit_rows, geometry, route, recall, kept)
    return asking(outside_autocast(_Conv.apply, x, *arguments), kept)


class _Conv(torch.autograd.Function):
    # With a separate setup_context the call would take three times as long.
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        A: Tensor,
        B: Tensor,
        row_scale: Tensor | None,
        unit_rows: bool,
        geometry: Geometry,
        route: Route,
        recall: Recall | None,
        kept: Kept | None,
    ) -> Tensor:
        ctx.geometry, ctx.route, ctx.dtype, ctx.kept = geometry, route, x.dtype, kept
        ctx.again = None if recall is None else recall.again
        source = x if recall is None else recall.source
        passing = PassingWeight(weight, A, B, row_scale, unit_rows)
        with passing as kernel:
            ctx.save_for_backward(source, weight, A, B, row_scale, passing.norms, None if kept is None else bias)
            return convolve(x, kernel.to(x.dtype), None if bias is None else bias.to(x.dtype), geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B, row_scale, norms, bias = ctx.saved_tensors
        scale = row_scale if norms is None else row_scale / norms
        needs_x, _, needs_bias, needs_A, needs_B, needs_scale, *_ = ctx.needs_input_grad
        output = ctx.kept.take(g) if needs_scale and ctx.kept is not None else None
        format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        g = g.contiguous(memory_format=format)
        grad_x = grad_A = grad_B = grad_scale = None
        if needs_x:
            like = x if x.dtype == g.dtype else torch.empty_like(x, dtype=g.dtype)
            with PassingWeight(weight, A, B, scale) as kernel:
                grad_x = input_gradient(g, like, kernel.to(g.dtype), ctx.geometry)
        if output is not None:
            grad_scale = scale_gradient(output, g, bias, scale)
        if needs_A or needs_B or needs_scale:
            if ctx.again is not None:
                x = ctx.again(x).to(ctx.dtype)
            if needs_scale and output is None:
                grad_A, grad_B, grad_scale = all_gradients(x, g, weight, A, B, scale, ctx.geometry)
            else:
                grad_A, grad_B = factor_gradients(x, g, A, B, scale, ctx.geometry, ctx.route)
        if norms is not None and grad_scale is not None:
            grad_scale = grad_scale / norms
        grad_bias = g.sum([0, *range(2, g.dim())]) if needs_bias else None
        return grad_x, None, grad_bias, grad_A, grad_B, grad_scale, None, None, None, None, None


def factor_gradients(
    x: Tensor, g: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None, geometry: Geometry, route: Route
) -> tuple[Tensor, Tensor]:
    """Gradients of ``A`` and ``B``, from the input x (N, Cin, ...) and the output's gradient g (N, Cout, ...)."""
    if conv_route(len(B), A.shape, geometry.groups, route) == "dense":
        grad = weight_gradient(x, g, torch.Size((len(B), *A.shape[1:])), geometry)
        return _of_weight_gradient(grad, A, B, row_scale)
    scaled = B if row_scale is None else row_scale[:, None] * B
    grad_A, grad_B = _through_rank(x, g, A.to(x.dtype), scaled.to(g.dtype), geometry)
    grad_B = grad_B.to(B.dtype)
    return grad_A.to(A.dtype), grad_B if row_scale is None else row_scale[:, None] * grad_B


def all_gradients(
    x: Tensor, g: Tensor, weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``A``, ``B`` and ``row_scale``, through the gradient of the whole kernel."""
    grad = weight_gradient(x, g, weight.shape, geometry)
    with PassingWeight(weight, A, B) as kernel:
        grad_scale = row_products(grad, kernel)
    return *_of_weight_gradient(grad, A, B, row_scale), grad_scale.to(row_scale.dtype)


def _of_weight_gradient(grad: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None) -> tuple[Tensor, Tensor]:
    grad = grad.to(A.dtype).flatten(1)  # (Cout, Cin / groups * kernel)
    if row_scale is not None:
        grad = row_scale[:, None] * grad
    return (B.t() @ grad).view(A.shape), grad @ A.flatten(1).t()


def _through_rank(x: Tensor, g: Tensor, A: Tensor, B: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """With g_r = B^T g and z = A * x, both of r channels: dA = weight gradient of (x, g_r), dB = g z^T."""
    groups, rank = geometry.groups, A.shape[0]
    if groups == 1 and is_channels_last(g):
        return _through_rank_channels_last(x, g, A, B, geometry)
    n, pixels = len(g), math.prod(g.shape[2:])
    gradient = g.reshape(n * groups, len(B) // groups, pixels)  # (N * groups, Cout / groups, P)
    narrow = B.view(groups, -1, rank).transpose(1, 2)  # (groups, r, Cout / groups)
    narrow = narrow.expand(n, -1, -1) if groups == 1 else narrow.repeat(n, 1, 1)
    g_r = torch.bmm(narrow, gradient).view(n, groups * rank, *g.shape[2:])
    per_group = A if groups == 1 else A.repeat(groups, *[1] * (A.dim() - 1))  # (groups * r, Cin / groups, ...)
    z = convolve(x, per_group, None, geometry)  # (N, groups * r, ...)
    grad_A = weight_gradient(x, g_r, per_group.shape, geometry)
    grad_A = grad_A if groups == 1 else grad_A.view(groups, *A.shape).sum(0)
    return grad_A, outer(z, g, groups)


def outer(z: Tensor, g: Tensor, groups: int) -> Tensor:
    """g z^T over all pixels, which is the gradient of B: z (N, groups * r, ...), g (N, Cout, ...) -> (Cout, r)."""
    if groups > 1:
        return outer_by_products(z, g, groups)
    if is_channels_last(g):
        z_rows, g_rows = (each.permute(0, 2, 3, 1).reshape(-1, each.shape[1]) for each in (z, g))  # (P, channels)
        return times_narrow_rows(g_rows, z_rows)
    return outer_by_products(z, g, groups) if g.is_cpu else outer_by_convolution(z, g)


def outer_by_products(z: Tensor, g: Tensor, groups: int) -> Tensor:
    """``outer``, in the usual order of memory."""
    n, pixels, channels, rank = len(g), math.prod(g.shape[2:]), g.shape[1] // groups, z.shape[1] // groups
    gradient = g.reshape(n * groups, channels, pixels).transpose(1, 2)
    # Narrow on the left: the product of gradient and z would take twice as long.
    products = torch.bmm(z.reshape(n * groups, rank, pixels), gradient).view(n, groups, rank, channels)
    return products.sum(0).transpose(1, 2).reshape(-1, rank)  # (groups, r, Cout / groups) -> (Cout, r)


def outer_by_convolution(z: Tensor, g: Tensor) -> Tensor:
    """The same for one group, as a weight's gradient: one kernel on a GPU, where the products are three."""
    dimensions = g.dim() - 2
    kernel_shape = torch.Size((g.shape[1], z.shape[1], *[1] * dimensions))
    return weight_gradient(z, g, kernel_shape, Geometry.pointwise(dimensions)).flatten(1)


def _through_rank_channels_last(
    x: Tensor, g: Tensor, A: Tensor, B: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    pointwise = geometry.is_pointwise(A)
    (n, _, height, width), rank = g.shape, A.shape[0]
    g_rows = g.permute(0, 2, 3, 1).reshape(-1, g.shape[1])  # (P, Cout), no copy
    g_r = times_narrow(g_rows, B.t())  # (P, r)
    if pointwise:
        taken = take_every(x, geometry.stride)
        x_rows = taken.permute(0, 2, 3, 1).reshape(-1, x.shape[1])  # (P, Cin)
        z = times_narrow(x_rows, A.flatten(1))  # (P, r)
        grad_A = narrow_times(g_r, x_rows).view(A.shape)
    else:
        z = convolve(x, A, None, geometry).permute(0, 2, 3, 1).reshape(-1, rank)
        g_r = g_r.reshape(n, height, width, rank).permute(0, 3, 1, 2)
        grad_A = weight_gradient(x, g_r, A.shape, geometry)
    return grad_A, times_narrow_rows(g_rows, z)
