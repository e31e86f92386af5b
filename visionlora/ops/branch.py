"""A low-rank update as a branch beside the layer: for weights that are stored in too few bits to hold it.

Added to a bfloat16 weight, an update below 2^-9 of it is rounded away; added to the output it is not. The
branch costs a second pass over the input and an addition over the output.
"""

import torch.nn.functional as F
from torch import Tensor

from visionlora.ops.convolution import plain_convolution
from visionlora.ops.geometry import Geometry


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
