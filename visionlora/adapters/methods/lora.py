"""LoRA, and rsLoRA with its other scale."""

import math

import torch
from torch import Tensor, nn

from visionlora.adapters.methods.base import Factors, constant, exact
from visionlora.adapters.methods.low_rank import LowRank


class LoRA(LowRank):
    """A low-rank update of a weight: ``weight + scale * (B @ A)``, with ``scale = alpha / rank``.

    The weight is seen as a matrix of its dimension 0 by everything else, so that one formula serves
    linear layers and convolutions of any kernel, grouped and transposed ones too (Hu et al. 2021,
    arXiv:2106.09685, section 4.1, with the kernel flattened). ``A`` starts as PEFT's does (uniform,
    as ``nn.Linear``'s weight), ``B`` at zero, so that a new adapter changes nothing.

    Attributes:
        lora_A: (r, *weight.shape[1:]).
        lora_B: (n, r), n rows of the weight.
        lora_A_start, lora_B_start: where they started, if their product is subtracted (``start_at``); else None.
    """

    lora_A_start: Tensor | None  # noqa: N815
    lora_B_start: Tensor | None  # noqa: N815

    can_pad = True

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__(weight, rank, alpha)
        start = exact(weight)
        self.scale = constant(self.alpha / self.divisor(rank), start.dtype)
        self.lora_A = nn.Parameter(start.new_empty(rank, *weight.shape[1:]))
        self.lora_B = nn.Parameter(start.new_zeros(len(weight), rank))
        nn.init.kaiming_uniform_(self.lora_A.flatten(1), a=math.sqrt(5))
        self.subtracts = False
        self.register_buffer("lora_A_start", None)
        self.register_buffer("lora_B_start", None)

    def start_at(self, A: Tensor, B: Tensor) -> None:
        """Start at these factors, and subtract their product from now on: ``weight + scale * (B @ A - B0 @ A0)``.

        So the frozen weight stays the base's, and is shared with other adapters.
        """
        self.subtracts = True
        self.lora_A_start, self.lora_B_start = A.clone(), B.clone()
        self.lora_A.copy_(A)
        self.lora_B.copy_(B)

    def factors(self, weight: Tensor) -> Factors:
        del weight
        B = self.scale * self.lora_B
        if self.factor_dropout:
            B = self.thinned(B)
        if not self.subtracts:
            return Factors(self.lora_A, B)
        assert self.lora_A_start is not None and self.lora_B_start is not None
        return Factors(torch.cat([self.lora_A, self.lora_A_start]), torch.cat([B, -self.scale * self.lora_B_start], 1))

    @torch.no_grad()
    def update_norm(self, weight: Tensor) -> Tensor:
        with self.at_rest():
            A, B, *_ = self.factors(weight)
        A = A.flatten(1)
        # |BA|^2 = <B'B, AA'>: products of r x r numbers, and none of the weight's size.
        return ((B.t() @ B) * (A @ A.t())).sum().clamp(min=0).sqrt()

    def starting_at_zero(self) -> list[nn.Parameter]:
        return [self.lora_B]

    @torch.no_grad()
    def pad(self, rank: int) -> None:
        A, B, more = self.lora_A, self.lora_B, rank - self.rank
        if self.subtracts:
            assert self.lora_A_start is not None and self.lora_B_start is not None
            A0, B0 = self.lora_A_start, self.lora_B_start
            self.lora_A_start = torch.cat([A0, A0.new_zeros(more, *A0.shape[1:])])
            self.lora_B_start = torch.cat([B0, B0.new_zeros(len(B0), more)], dim=1)
        grown = torch.cat([A, A.new_zeros(more, *A.shape[1:])])
        self.lora_A = nn.Parameter(grown, A.requires_grad) if isinstance(A, nn.Parameter) else grown
        self.lora_B = nn.Parameter(torch.cat([B, B.new_zeros(len(B), more)], dim=1), B.requires_grad)
        self.alpha *= self.divisor(rank) / self.divisor(self.rank)
        self.rank = rank

    def note(self, weight: Tensor) -> str:
        full = min(weight.shape[0], weight[0].numel())
        return f"the matrix has rank {full} at most" if self.rank > full else ""


class RSLoRA(LoRA):
    """LoRA whose scale is ``alpha / sqrt(rank)`` (Kalajdzievski 2023, arXiv:2312.03732)."""

    @staticmethod
    def divisor(rank: int) -> float:
        return math.sqrt(rank)
