"""LoHa: the update is the Hadamard product of two low-rank matrices."""

import math

from torch import Tensor, nn

from visionlora.adapters.methods.base import Method, constant, exact
from visionlora.ops.hadamard import hadamard_of_products


class LoHa(Method):
    """``weight + alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b)``, entry by entry (Hyeon-Woo et al. 2021,
    arXiv:2108.06098, proposition 2; as PEFT has it without ``use_effective_conv2d``).

    Two products of rank r have as many numbers as one of rank 2r, and give an update of a rank up to r * r. The
    kernel is flattened as for LoRA. ``w2_b`` starts at zero.

    Attributes:
        hada_w1_a, hada_w2_a: (n, r), n rows of the weight.
        hada_w1_b, hada_w2_b: (r, *weight.shape[1:]).
    """

    adds = True
    drops_factors = True

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__(weight, rank, alpha)
        start = exact(weight)
        self.scale = constant(self.alpha / rank, start.dtype)
        self.hada_w1_a = nn.Parameter(start.new_empty(len(weight), rank))
        self.hada_w1_b = nn.Parameter(start.new_empty(rank, *weight.shape[1:]))
        self.hada_w2_a = nn.Parameter(start.new_empty(len(weight), rank))
        self.hada_w2_b = nn.Parameter(start.new_zeros(rank, *weight.shape[1:]))
        for factor in (self.hada_w1_a, self.hada_w1_b, self.hada_w2_a):
            nn.init.kaiming_uniform_(factor.flatten(1), a=math.sqrt(5))

    def adapted(self, weight: Tensor) -> Tensor:
        return weight + self.update(weight)

    def update(self, weight: Tensor) -> Tensor:
        one, other = self.scale * self.thinned(self.hada_w1_a), self.thinned(self.hada_w2_a)
        product = hadamard_of_products(one, self.hada_w1_b.flatten(1), other, self.hada_w2_b.flatten(1))
        return product.view(weight.shape)
