"""The Hadamard product of two low-rank matrices, which keeps its factors and none of the matrices."""

from typing import Any

import torch
from torch import Tensor


def hadamard_of_products(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> Tensor:
    """``(A1 @ B1) * (A2 @ B2)``, entry by entry: A1, A2 (m, r), B1, B2 (r, n) -> (m, n).

    The backward makes both products of rank r again, instead of keeping two matrices of the weight's size.
    """
    product: Tensor = _Hadamard.apply(A1, B1, A2, B2)
    return product


class _Hadamard(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> Tensor:
        return (A1 @ B1) * (A2 @ B2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004  # by torch
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        A1, B1, A2, B2 = ctx.saved_tensors
        of_one, of_other = g * (A2 @ B2), g * (A1 @ B1)  # (m, n)
        return of_one @ B1.t(), A1.t() @ of_one, of_other @ B2.t(), A2.t() @ of_other
