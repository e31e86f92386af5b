"""A linear layer with a low-rank update, fused."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.ops.autocast import plain_autocast
from visionlora.ops.cost import Route, linear_route
from visionlora.ops.recompute import Recall
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
    with plain_autocast(x) as x:
        output: Tensor = _Linear.apply(x, weight, bias, A, B, through_rank, recall)
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
        recall: Recall | None,
    ) -> Tensor:
        ctx.through_rank, ctx.dtype = through_rank, x.dtype
        ctx.again = None if recall is None else recall.again
        ctx.save_for_backward(x if recall is None else recall.source, weight, A, B)
        with passing_weight(weight, A, B) as adapted:
            return _product(x, adapted.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B = ctx.saved_tensors
        needs_x, _, needs_bias, needs_A, needs_B, *_ = ctx.needs_input_grad
        grad_x = grad_A = grad_B = None
        if needs_x:
            with passing_weight(weight, A, B) as adapted:
                grad_x = g @ adapted.to(g.dtype)
        g = _rows(g)  # (rows, out)
        if needs_A or needs_B:
            x = _rows(x if ctx.again is None else ctx.again(x).to(ctx.dtype))  # (rows, in)
            grad_A, grad_B = factor_gradients(x, g, A, B, ctx.through_rank)
        grad_bias = g.sum(0) if needs_bias else None
        return grad_x, None, grad_bias, grad_A, grad_B, None, None


def factor_gradients(x: Tensor, g: Tensor, A: Tensor, B: Tensor, through_rank: bool) -> tuple[Tensor, Tensor]:
    """Gradients of ``A`` and ``B``, from the input x (rows, in) and the output's gradient g (rows, out)."""
    if not through_rank:
        grad_weight = (g.t() @ x).to(A.dtype)  # (out, in)
        return B.t() @ grad_weight, grad_weight @ A.t()
    g_r, z = g @ columns_first(B.to(g.dtype)), x @ A.to(x.dtype).t()  # (rows, r)
    # Narrow on the left: g.t() @ z would take twice as long.
    return (g_r.t().contiguous() @ x).to(A.dtype), (z.t() @ g).t().to(B.dtype)


def columns_first(B: Tensor) -> Tensor:
    """B (out, r) stored column by column, so that a product with it on the right takes half as long on a CPU."""
    return B.t().contiguous().t()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear``, never as a view: an output that is one can't be changed in place, as the next ReLU does."""
    if x.dim() == 2:
        return F.linear(x, weight, bias)
    rows = F.linear(_rows(x), weight, bias)
    product: Tensor = torch.ops.aten._unsafe_view(rows, [*x.shape[:-1], len(weight)])
    return product


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
