"""Which of two equal ways computes the gradients of an adapted layer, by a count of work.

Work is counted for one output pixel (one row of a linear layer) in multiply-adds. Reading a number from memory counts
as so many of them, for narrow products are bound by memory. How many depends on the processor; the counts of
``COSTS`` were fitted, one run a kind (``scripts/benchmark.py routes --fit``), and are never tried while training, so
that a run takes the same way wherever it is repeated on that kind of machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

Route = Literal["auto", "factored", "dense"]


@dataclass(frozen=True)
class Costs:
    """What a kind of processor takes.

    Attributes:
        read: multiply-adds in the time of reading one float32.
        vector: output channels that a convolution kernel computes at least; fewer cost as much.
    """

    read: int
    vector: int


COSTS = {"AVX512": Costs(read=40, vector=16), "AVX2": Costs(read=40, vector=16)}
"""By ``torch.backends.cpu.get_cpu_capability()``, with MKL and oneDNN."""

_OTHERS = COSTS["AVX512"]
"""Of kinds that nobody has measured yet."""


def costs() -> Costs:
    """Those of this processor."""
    return COSTS.get(_CAPABILITY, _OTHERS)


_CAPABILITY = torch.backends.cpu.get_cpu_capability()


def linear_route(n_in: int, n_out: int, rank: int, route: Route = "auto", by: Costs | None = None) -> Route:
    """Answer ``route``, or for ``"auto"`` the cheaper one of ``"factored"`` and ``"dense"``, ``by`` the given costs."""
    return conv_route(n_out, (rank, n_in), 1, route, by)


def conv_route(
    n_out: int, factor_shape: Sequence[int], groups: int, route: Route = "auto", by: Costs | None = None
) -> Route:
    """Likewise for a convolution; ``factor_shape`` is that of ``A``, (r, Cin / groups, ...)."""
    if route != "auto":
        return route
    by = by or costs()
    rank, inputs, taps = factor_shape[0], groups * factor_shape[1], math.prod(factor_shape[2:])
    reads = by.read * (n_out + inputs)
    per_tap = math.ceil(rank / by.vector) * by.vector if taps > 1 else rank
    # g_r and dB are of the output's size, z and dA of the input's; each reads its wide operand.
    factored = 2 * rank * n_out + 2 * per_tap * inputs * taps + 2 * reads
    dense = n_out * factor_shape[1] * taps + reads
    return "factored" if factored < dense else "dense"


MixedRoute = Literal["beside", "by group"]


def mixed_route(
    weight_shape: Sequence[int],
    rank: int,
    spatial_groups: int,
    pixels: int,
    images: int,
    updates: int,
    by: Costs | None = None,
) -> MixedRoute:
    """How a layer computes a mixed batch (``ops.mixed``): which adds less to what the plain layer costs.

    Args:
        weight_shape: (out, in / groups, ...).
        rank: of the updates, the largest.
        spatial_groups: a convolution's groups, 1 for a linear layer.
        pixels: output pixels, or rows, of one image.
        images: in the batch.
        updates: different ones in the batch.
        by: the processor's costs; this one's by default.
    """
    by = by or costs()
    n_out, n_in, taps = weight_shape[0], weight_shape[1], math.prod(weight_shape[2:])
    # z is made from the input; what is added passes over the output, which is read and written.
    channels = rank * spatial_groups
    per_tap = math.ceil(channels / by.vector) * by.vector if taps > 1 else channels
    beside = images * pixels * (per_tap * n_in * taps + rank * n_out + by.read * (n_in * spatial_groups + 2 * n_out))
    # The weight is read, the adapted one written and read; kernels of more than one tap give parts that are joined.
    joined = images * pixels * 2 * by.read * n_out if len(weight_shape) > 2 else 0
    grouped = updates * n_out * n_in * taps * (rank + 3 * by.read) + joined
    return "beside" if beside < grouped else "by group"
