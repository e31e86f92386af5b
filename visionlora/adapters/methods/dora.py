"""DoRA: the direction of each row of a weight by LoRA, and its length by a number of its own."""

from torch import Tensor, nn

from visionlora.adapters.methods.base import Factors, Method, exact
from visionlora.adapters.methods.lora import LoRA
from visionlora.ops.weight import adapted_weight, row_norms, unit_scale


class DoRA(LoRA):
    """``m * (W + BA) / ||W + BA||``, row by row (Liu et al. 2024, arXiv:2402.09353, as PEFT has it).

    The norm follows the factors but is no part of the graph (section 4.3): what comes back to ``m`` and to ``B @ A``
    is as if it were a constant. A row of zeros stays one. Of a transposed convolution the rows are input channels.
    A layer that brings its weight's rows to one length itself (``StdConv2d``) takes no notice of ``m``.

    Attributes:
        lora_magnitude: m, (n,), n rows of the weight; starts as their norms.
    """

    adds = False

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__(weight, rank, alpha)
        A, B, *_ = super().factors(weight)
        self.lora_magnitude = nn.Parameter(row_norms(adapted_weight(exact(weight), A, B)).detach())

    def factors(self, weight: Tensor) -> Factors:
        A, B, *_ = super().factors(weight)
        return Factors(A, B, self.lora_magnitude, unit_rows=True)

    def adapted(self, weight: Tensor) -> Tensor:
        A, B, *_ = self.factors(weight)
        return adapted_weight(weight, A, B, unit_scale(weight, A, B, self.lora_magnitude))

    def update(self, weight: Tensor) -> Tensor:
        return self.adapted(weight) - weight

    update_norm = Method.update_norm
