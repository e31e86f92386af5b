"""What methods have in common whose update is a product of two factors."""

from torch import Tensor

from visionlora.adapters.methods.base import Factors, Method
from visionlora.ops.weight import adapted_weight


class LowRank(Method):
    """``weight + B @ A``; a subclass says in ``factors`` what A and B are."""

    adds = True
    drops_factors = True

    def factors(self, weight: Tensor) -> Factors:
        raise NotImplementedError

    def adapted(self, weight: Tensor) -> Tensor:
        A, B, *_ = self.factors(weight)
        return adapted_weight(weight, A, B)

    def update(self, weight: Tensor) -> Tensor:
        A, B, *_ = self.factors(weight)
        return (B @ A.flatten(1)).view(weight.shape)
