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
