"""(IA)3: each row of a weight is scaled."""

from torch import Tensor, nn

from visionlora.adapters.methods.base import Factors, Method, exact


class IA3(Method):
    """``l * weight``, row by row: a number for each output channel.

    After Liu et al. 2022, arXiv:2205.05638, section 3.3, who scale keys, values and the inner activations of the MLP:
    ``targets=["attn.qkv:k,v", "mlp.fc1"]``. A bias is not scaled. Of a transposed convolution the rows are input
    channels.

    Attributes:
        ia3_scale: l, (n,), n rows of the weight; starts at ones.
    """

    has_rank = False

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__(weight, rank, alpha)
        self.ia3_scale = nn.Parameter(exact(weight).new_ones(len(weight)))

    @classmethod
    def obstacle(cls, layer: nn.Module) -> str:
        if type(layer).__module__ == "timm.layers.std_conv":
            return "it brings its weight's rows to one length, whatever ia3 makes of them"
        return ""

    def factors(self, weight: Tensor) -> Factors:
        return Factors(weight.new_zeros(1, *weight.shape[1:]), weight.new_zeros(len(weight), 1), self.ia3_scale)

    def adapted(self, weight: Tensor) -> Tensor:
        return self.ia3_scale.view(-1, *[1] * (weight.dim() - 1)) * weight
