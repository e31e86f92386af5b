"""LoRA-FA: LoRA whose A stays as it was drawn."""

from torch import Tensor

from visionlora.adapters.methods.lora import LoRA


class LoRAFA(LoRA):
    """``weight + alpha / rank * (B @ A)`` with A frozen (Zhang et al. 2023, arXiv:2308.03303).

    A layer need not keep its input for the backward, only the r channels that A makes of it, and A gets no gradient:
    of all methods it takes the least memory. A stands in the adapter's file, for it is random.

    Attributes:
        lora_A: (r, *weight.shape[1:]), no parameter.
        lora_B: (n, r), n rows of the weight.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__(weight, rank, alpha)
        drawn = self.lora_A.detach()
        del self.lora_A
        self.register_buffer("lora_A", drawn)
