"""Adapter methods: small modules with ``forward(weight) -> weight``."""

import math

import torch
from torch import Tensor, nn

from visionlora.ops.weight import adapted_weight


class LoRA(nn.Module):
    """A low-rank update of a weight: ``weight + scale * (B @ A)``.

    The weight is seen as a matrix of its dimension 0 by everything else, so that one formula serves
    linear layers and convolutions of any kernel, grouped and transposed ones too (Hu et al. 2021,
    arXiv:2106.09685, section 4.1, with the kernel flattened). ``A`` starts as PEFT's does (uniform,
    as ``nn.Linear``'s weight), ``B`` at zero, so that a new adapter changes nothing.

    Args:
        weight: the frozen weight, (dim0, ...); gives shape, device and precision.
        rank: r.
        alpha: the scale's numerator.
        rslora: divide alpha by sqrt(r) instead of r.
        parts: names of the rows that are adapted, such as ``"q,v"``, for reports and files; empty for all.
        rows: (n,) indices of those rows, or None for all.

    Attributes:
        lora_A: (r, *weight.shape[1:]).
        lora_B: (n, r), n = dim0 without rows.
    """

    rows: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        alpha: float,
        rslora: bool = False,
        parts: str = "",
        rows: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.rank, self.alpha, self.rslora, self.parts = rank, float(alpha), rslora, parts
        self.scale = alpha / (math.sqrt(rank) if rslora else rank)
        # Updates far below one unit in the last place of bf16 must still add up.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        n_rows = weight.shape[0] if rows is None else len(rows)
        self.lora_A = nn.Parameter(torch.empty(rank, *weight.shape[1:], dtype=dtype, device=weight.device))
        self.lora_B = nn.Parameter(torch.zeros(n_rows, rank, dtype=dtype, device=weight.device))
        self.register_buffer("rows", None if rows is None else rows.to(weight.device), persistent=False)
        nn.init.kaiming_uniform_(self.lora_A.flatten(1), a=math.sqrt(5))

    def factors(self, n_rows: int) -> tuple[Tensor, Tensor]:
        """A (r, *weight.shape[1:]) and the scaled B (n_rows = dim0, r), whose product is the update."""
        B = self.scale * self.lora_B
        if self.rows is not None:
            B = B.new_zeros(n_rows, self.rank).index_copy(0, self.rows, B)
        return self.lora_A, B

    def delta(self, shape: torch.Size) -> Tensor:
        """The update as a tensor of the weight's ``shape``, in the factors' precision."""
        A, B = self.factors(shape[0])
        return (B @ A.flatten(1)).view(shape)

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, with the shape and dtype of ``weight``; computed without autocast."""
        with torch.autocast(weight.device.type, enabled=False):
            return adapted_weight(weight, *self.factors(weight.shape[0])).to(weight.dtype)

    def extra_repr(self) -> str:
        parts = f", parts={self.parts}" if self.parts else ""
        return f"rank={self.rank}, alpha={self.alpha:g}{parts}"
