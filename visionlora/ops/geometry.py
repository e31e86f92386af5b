"""How a convolution moves over its input."""

from typing import NamedTuple

from torch import Tensor


class Geometry(NamedTuple):
    """Stride, padding and dilation for each spatial dimension, and the number of groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def is_pointwise(self, kernel: Tensor) -> bool:
        """Whether each output pixel depends on one input pixel through one matrix (1 x 1, one group, no padding)."""
        return self.groups == 1 and not any(self.padding) and all(side == 1 for side in kernel.shape[2:])

    @classmethod
    def pointwise(cls, dimensions: int) -> "Geometry":
        """Of a 1 x 1 convolution in so many spatial dimensions."""
        return cls((1,) * dimensions, (0,) * dimensions, (1,) * dimensions, 1)
