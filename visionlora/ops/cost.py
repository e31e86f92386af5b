"""Which of two equal ways computes the gradients of an adapted layer, by a count of work.

Work is counted for one output pixel (one row of a linear layer) in multiply-adds. Reading a number from
memory counts as ``READ`` of them: narrow products are bound by memory, which two AVX-512 cores showed to be
so at about 40. The counts decide, not trials, so that a run takes the same way wherever it is repeated.
``scripts/benchmark.py routes`` prints for a model's layers what both ways take.
"""

import math
from collections.abc import Sequence
from typing import Literal

Route = Literal["auto", "factored", "dense"]

READ = 40
"""Multiply-adds in the time of reading one float32."""

_VECTOR = 16
"""Output channels that a convolution kernel computes at least; fewer cost as much."""


def linear_route(n_in: int, n_out: int, rank: int, route: Route = "auto") -> Route:
    """Answer ``route``, or for ``"auto"`` the cheaper one of ``"factored"`` and ``"dense"``."""
    return conv_route(n_out, (rank, n_in), 1, route)


def conv_route(n_out: int, factor_shape: Sequence[int], groups: int, route: Route = "auto") -> Route:
    """Likewise for a convolution; ``factor_shape`` is that of ``A``, (r, Cin / groups, ...)."""
    if route != "auto":
        return route
    rank, inputs, taps = factor_shape[0], groups * factor_shape[1], math.prod(factor_shape[2:])
    reads = READ * (n_out + inputs)
    per_tap = math.ceil(rank / _VECTOR) * _VECTOR if taps > 1 else rank
    # g_r and dB are of the output's size, z and dA of the input's; each reads its wide operand.
    factored = 2 * rank * n_out + 2 * per_tap * inputs * taps + 2 * reads
    dense = n_out * factor_shape[1] * taps + reads
    return "factored" if factored < dense else "dense"
