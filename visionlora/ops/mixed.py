"""Layers on a mixed batch, in which images have updates of their own; the images of one update lie side by side.

Two equal ways: beside the layer, as batched products with a bank of factors, one for each image; or group by group,
with each group's adapted weight. ``cost.mixed_route`` says which is cheaper. No graph is recorded by either.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.ops.convolution import convolve, plain_convolution, take_every
from visionlora.ops.geometry import Geometry

Span = tuple[int, int]
"""First row of a group, and the first after it."""


def linear_beside(x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor) -> Tensor:
    """``F.linear(x[i], weight + B[i] @ A[i], bias)`` for each i.

    Args:
        x: (G, ..., in), the rows of G groups of equal size.
        weight: (out, in).
        bias: (out,) or None.
        A: (G, r, in).
        B: (G, out, r).

    Returns:
        (G, ..., out).
    """
    y = F.linear(x, weight, bias)
    rows = x.reshape(len(A), -1, x.shape[-1])  # (G, M, in)
    z = torch.bmm(rows, A.to(x.dtype).mT)  # (G, M, r)
    y.view(len(A), -1, y.shape[-1]).baddbmm_(z, B.to(y.dtype).mT)
    return y


def conv_beside(x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, geometry: Geometry) -> Tensor:
    """The convolution of each image x[i] with the kernel ``weight + B[i] @ A[i]``.

    Args:
        x: (N, Cin, ...).
        weight: (Cout, Cin / groups, ...).
        bias: (Cout,) or None.
        A: (N, r, Cin / groups, ...).
        B: (N, Cout, r).
        geometry: stride, padding, dilation, groups.

    Returns:
        (N, Cout, ...).
    """
    n, groups = len(x), geometry.groups
    y = convolve(x, weight, bias, geometry)
    A, B = A.to(x.dtype), B.to(x.dtype)
    if geometry.is_pointwise(weight):
        z = torch.bmm(A.flatten(2), take_every(x, geometry.stride).flatten(2))  # (N, r, P)
    else:
        # The images side by side as groups of one image's channels.
        kernels = A[:, None].expand(n, groups, *A.shape[1:]).reshape(-1, *A.shape[2:])  # (N * groups * r, ...)
        joined = x.reshape(1, -1, *x.shape[2:])  # (1, N * Cin, ...)
        z = plain_convolution(joined, kernels, None, geometry._replace(groups=n * groups))
        z = z.view(n * groups, A.shape[1], -1)  # (N * groups, r, P)
    wide = B.reshape(n * groups, -1, B.shape[2])  # (N * groups, Cout / groups, r)
    if y.is_contiguous():
        y.view(n * groups, wide.shape[1], -1).baddbmm_(wide, z)
        return y
    return y + torch.bmm(wide, z).view(y.shape)


def linear_by_group(x: Tensor, weights: Iterable[Tensor], bias: Tensor | None, spans: list[Span]) -> Tensor:
    """``F.linear`` of each span of x's rows with a weight of its own.

    Args:
        x: (rows, ..., in).
        weights: (out, in) each, asked for one after the other; a weight need not outlive the next.
        bias: (out,) or None, the same for all.
        spans: of ``rows``; together they are all rows.

    Returns:
        (rows, ..., out).
    """
    y: Tensor | None = None
    for weight, (start, stop) in zip(weights, spans, strict=True):
        if y is None:
            y = x.new_empty(*x.shape[:-1], len(weight))
        rows, to = x[start:stop].reshape(-1, x.shape[-1]), y[start:stop].view(-1, len(weight))
        columns = weight.to(x.dtype).t()
        if bias is None:
            torch.mm(rows, columns, out=to)
        else:
            torch.addmm(bias.to(x.dtype), rows, columns, out=to)
    assert y is not None, "no group"
    return y


def conv_by_group(
    x: Tensor, weights: Iterable[Tensor], bias: Tensor | None, spans: list[Span], geometry: Geometry
) -> Tensor:
    """The convolution of each span of images with a kernel of its own, (Cout, Cin / groups, ...); else as above.

    x is (N, Cin, ...), the result (N, Cout, ...).
    """
    y: Tensor | None = None
    for weight, (start, stop) in zip(weights, spans, strict=True):
        if x.is_cpu and x.is_contiguous() and geometry.is_pointwise(weight):
            pixels = take_every(x[start:stop], geometry.stride)
            if y is None:
                y = x.new_empty(len(x), len(weight), *pixels.shape[2:])
            matrix = weight.to(x.dtype).flatten(1).expand(stop - start, -1, -1)
            torch.bmm(matrix, pixels.flatten(2), out=y[start:stop].flatten(2))
            if bias is not None:
                y[start:stop].flatten(2).add_(bias.to(x.dtype)[:, None])
            continue
        part = convolve(x[start:stop], weight.to(x.dtype), None if bias is None else bias.to(x.dtype), geometry)
        if y is None:
            y = part.new_empty(len(x), *part.shape[1:])
        y[start:stop] = part
    assert y is not None, "no group"
    return y
