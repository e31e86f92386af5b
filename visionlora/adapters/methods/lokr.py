"""LoKr: the update is a Kronecker product."""

import math

import torch
from torch import Tensor, nn

from visionlora.adapters.methods.base import Method, constant, exact


class LoKr(Method):
    """``weight + alpha / rank * (w1 kron w2)`` (Yeh et al. 2023, arXiv:2309.14859, as PEFT has it).

    A weight of (dim0, dim1, ...) is cut into blocks in both dimensions, as near to squares of blocks as its sizes
    allow: ``w1`` weighs the blocks, ``w2`` is what stands in each. Any rank of the whole is reached with few numbers.
    ``w2`` is itself a product of rank r where that is smaller, else a matrix. ``w1`` starts at zero.

    Attributes:
        lokr_w1: (blocks down, blocks across).
        lokr_w2: (rows of a block, its columns, ...), or in its place
        lokr_w2_a, lokr_w2_b: (rows of a block, r) and (r, its columns, ...).
    """

    adds = True

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__(weight, rank, alpha)
        (down, rows), (across, columns) = _nearly_square(weight.shape[0]), _nearly_square(weight.shape[1])
        start, kernel = exact(weight), weight.shape[2:]
        self.scale = constant(self.alpha / rank, start.dtype)
        self.lokr_w1 = nn.Parameter(start.new_zeros(down, across))
        self.lokr_w2 = self.lokr_w2_a = self.lokr_w2_b = None
        if 2 * rank < max(rows, columns):
            self.lokr_w2_a = nn.Parameter(start.new_empty(rows, rank))
            self.lokr_w2_b = nn.Parameter(start.new_empty(rank, columns, *kernel))
        else:
            self.lokr_w2 = nn.Parameter(start.new_empty(rows, columns, *kernel))
        for factor in (self.lokr_w2, self.lokr_w2_a, self.lokr_w2_b):
            if factor is not None:
                nn.init.kaiming_uniform_(factor.flatten(1), a=math.sqrt(5))

    def adapted(self, weight: Tensor) -> Tensor:
        return weight + self.update(weight)

    def update(self, weight: Tensor) -> Tensor:
        w2 = self.lokr_w2
        if w2 is None:
            assert self.lokr_w2_a is not None and self.lokr_w2_b is not None
            w2 = (self.lokr_w2_a @ self.lokr_w2_b.flatten(1)).unflatten(1, self.lokr_w2_b.shape[1:])
        w1 = self.lokr_w1.view(*self.lokr_w1.shape, *[1] * (weight.dim() - 2))
        return self.scale * torch.kron(w1, w2)

    def note(self, weight: Tensor) -> str:
        down, across = self.lokr_w1.shape
        rows = len(weight) if self.rows is None else len(self.rows)
        return f"{down} x {across} blocks of {rows // down} x {weight.shape[1] // across}"


def _nearly_square(size: int) -> tuple[int, int]:
    """The two whole numbers whose product is ``size``, the lesser first, that are nearest to each other."""
    lesser = next(number for number in range(math.isqrt(size), 0, -1) if size % number == 0)
    return lesser, size // lesser
