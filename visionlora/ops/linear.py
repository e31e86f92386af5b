"""A linear layer with a low-rank update, fused."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.ops.autocast import plain_autocast
from visionlora.ops.cost import Route, linear_route, rebuild_weight
from visionlora.ops.recall import Recall
from visionlora.ops.weight import passing_weight


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    route: Route = "auto",
    recall: Recall | None = None,
) -> Tensor:
    """``F.linear(x, weight + B @ A, bias)``; autocast is respected as ``F.linear`` does.

    Args:
        x: (..., in).
        weight: (out, in), frozen: it gets no gradient.
        bias: (out,) or None.
        A: (r, in).
        B: (out, r).
        route: how the factors' gradients are computed: through r channels (``"factored"``), from the
            gradient of the whole weight (``"dense"``), or whichever the cost model says (``"auto"``).
        recall: how to make ``x`` again in the backward instead of keeping it.

    Returns:
        (..., out).
    """
    through_rank = linear_route(weight.shape[1], weight.shape[0], len(A), route) == "factored"
    source, make = (recall.source, recall.again) if recall else (None, None)
    with plain_autocast(x) as x:
        output: Tensor = _Linear.apply(x, weight, bias, A, B, through_rank, source, make)
    return output


class _Linear(torch.autograd.Function):
    # With a separate setup_context the call would take three times as long.
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        A: Tensor,
        B: Tensor,
        through_rank: bool,
        source: Any,
        make: Any,
    ) -> Tensor:
        ctx.make, ctx.dtype = make, x.dtype
        # Now, for the input is in the cache; in the backward it would be read twice from memory.
        z = _rows(x) @ A.to(x.dtype).t() if through_rank else None  # (rows, r)
        ctx.save_for_backward(x if source is None else source, weight, A, B, z)
        with passing_weight(weight, A, B) as adapted:
            return F.linear(x, adapted.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B, z = ctx.saved_tensors
        needs_x, _, needs_bias, needs_A, needs_B, *_ = ctx.needs_input_grad
        shape, g = g.shape, _rows(g)  # (rows, out)
        grad_x = grad_A = grad_B = None
        g_r = g @ B.to(g.dtype)  # (rows, r)
        if needs_x and rebuild_weight(len(g), len(B)):
            with passing_weight(weight, A, B) as adapted:
                grad_x = g @ adapted.to(g.dtype)
        elif needs_x:
            grad_x = (g @ weight.to(g.dtype)).addmm_(g_r, A.to(g.dtype))
        if needs_A or needs_B:
            x = _rows(x if ctx.make is None else ctx.make(x).to(ctx.dtype))  # (rows, in)
            if z is None:
                grad_weight = (g.t() @ x).to(A.dtype)  # (out, in)
                grad_A, grad_B = B.t() @ grad_weight, grad_weight @ A.t()
            else:
                # Narrow on the left: g.t() @ z would take twice as long.
                grad_A, grad_B = (g_r.t() @ x).to(A.dtype), (z.t() @ g).t().to(B.dtype)
        grad_bias = g.sum(0) if needs_bias else None
        grad_x = None if grad_x is None else grad_x.view(*shape[:-1], -1)
        return grad_x, None, grad_bias, grad_A, grad_B, None, None, None


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
