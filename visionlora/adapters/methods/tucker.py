"""The update of a convolution as three: 1 x 1 to r channels, the kernel on these, 1 x 1 back."""

import math

import torch
from torch import Tensor, nn

from visionlora.adapters.methods.base import Factors, constant, exact
from visionlora.adapters.methods.low_rank import LowRank


class Tucker(LowRank):
    """``weight + alpha / rank * up x core x down``, with the kernel in a core of r x r channels.

    A Tucker decomposition of the update (Kim et al. 2015, arXiv:1511.06530; as an adapter Yeh et al. 2023,
    arXiv:2309.14859, section 3): of n x c x k x k numbers ``r (n + c + r k k)`` remain, where LoRA has
    ``r (n + c k k)``. A linear layer's core is an r x r matrix. ``up`` starts at zero.

    Attributes:
        tucker_up: (n, r), n rows of the weight.
        tucker_core: (r, r, *kernel).
        tucker_down: (r, c), c the weight's second dimension.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__(weight, rank, alpha)
        start = exact(weight)
        self.scale = constant(self.alpha / rank, start.dtype)
        self.tucker_up = nn.Parameter(start.new_zeros(len(weight), rank))
        self.tucker_core = nn.Parameter(start.new_empty(rank, rank, *weight.shape[2:]))
        self.tucker_down = nn.Parameter(start.new_empty(rank, weight.shape[1]))
        # So that core and down together are as large as LoRA's A, whose variance is 1 / (3 c k k): down's is 1 / (3 c),
        # and the core's sums over r of its products with it.
        nn.init.kaiming_uniform_(self.tucker_down, a=math.sqrt(5))
        nn.init.normal_(self.tucker_core, std=math.prod([rank, *weight.shape[2:]]) ** -0.5)

    def starting_at_zero(self) -> list[nn.Parameter]:
        return [self.tucker_up]

    def factors(self, weight: Tensor) -> Factors:
        del weight
        A = torch.einsum("rs...,sc->rc...", self.tucker_core, self.tucker_down)  # (r, c, *kernel)
        return Factors(A, self.thinned(self.scale * self.tucker_up))
