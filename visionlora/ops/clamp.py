"""ReLU6 and Hardtanh that keep their output, which the next layer keeps anyway, and not their input."""

from typing import Any

import torch
from torch import Tensor


def clamp(x: Tensor, low: float, high: float, inplace: bool) -> Tensor:
    """``F.hardtanh(x, low, high, inplace)`` with the same gradient: 0 where the output is ``low`` or ``high``."""
    output: Tensor = _Clamp.apply(x, low, high, inplace)
    return output


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float, inplace: bool) -> Tensor:
        ctx.low, ctx.high = low, high
        if inplace:
            ctx.mark_dirty(x)
            x.clamp_(low, high)
        else:
            x = x.clamp(low, high)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(g, output, ctx.low, ctx.high), None, None, None
