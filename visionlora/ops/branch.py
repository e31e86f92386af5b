"""A low-rank update as a branch beside the layer: for weights that are stored in too few bits to hold it.

Added to a bfloat16 weight, an update below 2^-9 of it is rounded away; added to the output it is not. The
branch costs a second pass over the input and an addition over the output.
"""

import torch.nn.functional as F
from torch import Tensor

from visionlora.ops.convolution import plain_convolution
from visionlora.ops.geometry import Geometry


def beside(plain: Tensor, branch: Tensor, bias: Tensor | None, row_scale: Tensor | None, dim: int) -> Tensor:
    """What ``row_scale * (weight + update)`` and the bias give, from what the plain layer and the branch give.

    Args:
        plain: the output with the weight alone, and the bias.
        branch: the output with the update alone.
        bias: (C,) or None.
        row_scale: (C,), or None for ones. Its difference from 1 counts, so that ones leave ``plain`` to the bit.
        dim: of the C channels.
    """
    if row_scale is None:
        return plain + branch
    shape = [-1 if at == dim % plain.dim() else 1 for at in range(plain.dim())]
    product = plain if bias is None else plain - bias.to(plain.dtype).view(shape)
    more, scale = ((row_scale - 1).to(plain.dtype).view(shape), row_scale.to(plain.dtype).view(shape))
    return plain + (more * product + scale * branch)


def linear_branch(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """``F.linear(x, B @ A)`` for x (..., in), A (r, in), B (out, r)."""
    return F.linear(F.linear(x, A.to(x.dtype)), B.to(x.dtype))


def conv_branch(x: Tensor, A: Tensor, B: Tensor, geometry: Geometry) -> Tensor:
    """The convolution of x (N, Cin, ...) with the kernel ``B @ A``, for A (r, Cin / groups, ...), B (Cout, r)."""
    groups = geometry.groups
    zeros, ones = (0,) * len(geometry.stride), (1,) * len(geometry.stride)
    narrow = A.repeat(groups, *[1] * (A.dim() - 1)).to(x.dtype)  # (groups * r, Cin / groups, ...)
    z = plain_convolution(x, narrow, None, geometry)
    wide = B.view(*B.shape, *ones).to(x.dtype)  # (Cout, r, 1, ...)
    return plain_convolution(z, wide, None, Geometry(ones, zeros, ones, groups))
