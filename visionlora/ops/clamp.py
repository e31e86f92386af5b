"""ReLU6 and Hardtanh in place that keep their output, which the next layer keeps anyway, and no copy of their input."""

from typing import Any

import torch
from torch import Tensor


def clamp_(x: Tensor, low: float, high: float) -> Tensor:
    """``F.hardtanh_(x, low, high)`` with the same gradient: 0 where the output is ``low`` or ``high``.

    Raises:
        RuntimeError: in the backward, if somebody wrote into the output.
    """
    output: Tensor = _Clamp.apply(x, low, high)
    return output


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.low, ctx.high = low, high
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_(low, high))
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        try:
            (output,) = ctx.saved_tensors
        except RuntimeError as error:
            if "inplace" not in str(error):
                raise
            raise RuntimeError(
                "what a ReLU6 or Hardtanh made in place was written to afterwards, but beside adapted layers its "
                "gradient follows from that; build it with inplace=False"
            ) from error
        return torch.ops.aten.hardtanh_backward(g, output, ctx.low, ctx.high), None, None
