"""A linear layer with a low-rank update, fused."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.ops.autocast import outside_autocast
from visionlora.ops.cost import Route, linear_route
from visionlora.ops.kept import Kept, asking, kept_for, scale_gradient
from visionlora.ops.narrow import narrow_times, times_narrow, times_narrow_rows
from visionlora.ops.recompute import Recall
from visionlora.ops.weight import PassingWeight, row_products


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    row_scale: Tensor | None = None,
    unit_rows: bool = False,
    route: Route = "auto",
    recall: Recall | None = None,
) -> Tensor:
    """``F.linear(x, row_scale * (weight + B @ A), bias)``; autocast is respected as ``F.linear`` does.

    Args:
        x: (..., in).
        weight: (out, in), frozen: it gets no gradient.
        bias: (out,) or None.
        A: (r, in).
        B: (out, r).
        row_scale: (out,), or None for ones.
        unit_rows: divide the rows of ``weight + B @ A`` by their norms first, which count as constants.
        route: how the factors' gradients are computed: through r channels (``"factored"``), from the
            gradient of the whole weight (``"dense"``), or whichever the cost model says (``"auto"``).
        recall: how to make ``x`` again in the backward instead of keeping it.

    Returns:
        (..., out).
    """
    through_rank = linear_route(weight.shape[1], weight.shape[0], len(A), route) == "factored"
    kept = kept_for(row_scale)
    arguments = (weight, bias, A, B, row_scale, unit_rows, through_rank, recall, kept)
    return asking(outside_autocast(_Linear.apply, x, *arguments), kept)


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
        row_scale: Tensor | None,
        unit_rows: bool,
        through_rank: bool,
        recall: Recall | None,
        kept: Kept | None,
    ) -> Tensor:
        ctx.through_rank, ctx.dtype, ctx.kept = through_rank, x.dtype, kept
        ctx.again = None if recall is None else recall.again
        source = x if recall is None else recall.source
        passing = PassingWeight(weight, A, B, row_scale, unit_rows)
        with passing as adapted:
            ctx.save_for_backward(source, weight, A, B, row_scale, passing.norms, None if kept is None else bias)
            return product(x, adapted.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B, row_scale, norms, bias = ctx.saved_tensors
        scale = row_scale if norms is None else row_scale / norms
        needs_x, _, needs_bias, needs_A, needs_B, needs_scale, *_ = ctx.needs_input_grad
        output = ctx.kept.take(g) if needs_scale and ctx.kept is not None else None
        grad_x = grad_A = grad_B = grad_scale = None
        if needs_x:
            with PassingWeight(weight, A, B, scale) as adapted:
                grad_x = g @ adapted.to(g.dtype)
        g = rows_of(g)  # (rows, out)
        if output is not None:
            grad_scale = scale_gradient(rows_of(output), g, bias, scale)
        if needs_A or needs_B or needs_scale:
            x = rows_of(x if ctx.again is None else ctx.again(x).to(ctx.dtype))  # (rows, in)
            if needs_scale and output is None:
                grad_A, grad_B, grad_scale = all_gradients(x, g, weight, A, B, scale)
            else:
                grad_A, grad_B = factor_gradients(x, g, A, B, scale, ctx.through_rank)
        if norms is not None and grad_scale is not None:
            grad_scale = grad_scale / norms
        grad_bias = g.sum(0) if needs_bias else None
        return grad_x, None, grad_bias, grad_A, grad_B, grad_scale, None, None, None, None


def factor_gradients(
    x: Tensor, g: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None, through_rank: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of ``A`` and ``B``, from the input x (rows, in) and the output's gradient g (rows, out)."""
    if not through_rank:
        return _of_weight_gradient(g.t() @ x, A, B, row_scale)
    scaled = B if row_scale is None else row_scale[:, None] * B
    g_r, z = times_narrow(g, scaled.to(g.dtype).t()), times_narrow(x, A.to(x.dtype))  # (rows, r)
    grad_A, grad_B = narrow_times(g_r, x).to(A.dtype), times_narrow_rows(g, z).to(B.dtype)
    return grad_A, grad_B if row_scale is None else row_scale[:, None] * grad_B


def all_gradients(
    x: Tensor, g: Tensor, weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``A``, ``B`` and ``row_scale``, through the gradient of the whole weight."""
    grad = g.t() @ x  # (out, in)
    with PassingWeight(weight, A, B) as adapted:
        grad_scale = row_products(grad, adapted)
    return *_of_weight_gradient(grad, A, B, row_scale), grad_scale.to(row_scale.dtype)


def _of_weight_gradient(grad: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None) -> tuple[Tensor, Tensor]:
    grad = grad.to(A.dtype)
    if row_scale is not None:
        grad = row_scale[:, None] * grad
    return B.t() @ grad, grad @ A.t()


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear``, never as a view: an output that is one can't be changed in place, as the next ReLU does."""
    if x.dim() == 2:
        return F.linear(x, weight, bias)
    rows = F.linear(rows_of(x), weight, bias)
    product: Tensor = torch.ops.aten._unsafe_view(rows, [*x.shape[:-1], len(weight)])
    return product


def rows_of(x: Tensor) -> Tensor:
    """(..., n) -> (rows, n)."""
    return x.reshape(-1, x.shape[-1])
