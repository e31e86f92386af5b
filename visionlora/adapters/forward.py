"""The forward of an adapted layer whose class is known exactly, through the fused operations.

Other classes, and whoever reads ``layer.weight``, get the dense adapted weight, which is the reference.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from visionlora.adapters.folded import folded_into, scale_and_shift_in_step
from visionlora.adapters.methods.base import Factors
from visionlora.ops.autocast import without_autocast
from visionlora.ops.branch import beside, conv_branch, linear_branch
from visionlora.ops.conv import conv
from visionlora.ops.convolution import plain_convolution
from visionlora.ops.fixed import fixed_conv, fixed_linear
from visionlora.ops.geometry import Geometry
from visionlora.ops.linear import linear
from visionlora.ops.recompute import note_on
from visionlora.ops.weight import adapted_weight, unit_scale

_LINEARS = {"torch.nn.modules.linear": {"Linear"}, "timm.layers.linear": {"Linear"}}
_CONVS = {"torch.nn.modules.conv": {"Conv1d", "Conv2d", "Conv3d"}, "timm.layers.conv2d_same": {"Conv2dSame"}}

TrainedFactors = Callable[[nn.Module, Tensor], tuple[Factors, Any, bool] | None]


def is_known_conv(base: type) -> bool:
    """Whether the class is a convolution whose forward can be replaced by ``fused_forward``."""
    return base.__name__ in _CONVS.get(base.__module__, ())


def is_known(base: type) -> bool:
    """Whether ``fused_forward`` has a forward for the class."""
    return is_known_conv(base) or base.__name__ in _LINEARS.get(base.__module__, ())


def fused_forward(base: type, factors: TrainedFactors) -> Callable[[Any, Tensor], Tensor] | None:
    """A forward for a subclass of ``base``, or None if the class is not known.

    Args:
        base: the layer's class.
        factors: answers a layer's factors, the route of their gradients (``"branch"`` for an update that can't be
            added to the weight) and whether an input that can be made again is not to be kept; or None if the dense
            weight is to be used on this input.
    """
    if is_known_conv(base):
        return _conv_forward(base, factors)
    return _linear_forward(base, factors) if is_known(base) else None


def _linear_forward(base: Any, factors: TrainedFactors) -> Callable[[Any, Tensor], Tensor]:
    def forward(self: Any, input: Tensor) -> Tensor:
        trained = factors(self, input)
        if trained is None:
            output: Tensor = base.forward(self, input)
            return output
        (A, B, row_scale, unit_rows), route, again = trained
        weight = self._parameters["weight"]
        if route == "branch":
            if row_scale is not None and unit_rows:
                row_scale = unit_scale(weight, A, B, row_scale)
            plain = F.linear(input, weight, self.bias)
            return beside(plain, linear_branch(input, A, B), self.bias, row_scale, dim=-1)
        if B.requires_grad and not A.requires_grad and row_scale is None:
            return fixed_linear(input, weight, self.bias, A, B)
        if few_launches(input, route, again):
            return F.linear(input, _recorded(input, weight, A, B, row_scale, unit_rows), self.bias)
        recall = note_on(input) if again else None
        return linear(input, weight, self.bias, A, B, row_scale, unit_rows, route, recall)

    return forward


def _conv_forward(base: Any, factors: TrainedFactors) -> Callable[[Any, Tensor], Tensor]:
    def forward(self: Any, input: Tensor) -> Tensor:
        trained = factors(self, input)
        batchnorm = folded_into(self)
        if trained is None and batchnorm is None:
            output: Tensor = base.forward(self, input)
            return output
        padded, geometry = padded_input(self, input)
        bias, row_scale = self.bias, None
        if batchnorm is not None:
            row_scale, shift = scale_and_shift_in_step(self, batchnorm, padded)
            bias = shift if bias is None else shift + row_scale * bias
            if row_scale.requires_grad:
                trained = None  # By hand, after the fold: the fused operation gives it no gradient.
        weight = self._parameters["weight"]
        if trained is None:
            kernel = row_scale.view(-1, *[1] * (self.weight.dim() - 1)) * self.weight  # type: ignore[union-attr]
            return plain_convolution(padded, kernel, bias, geometry)
        (A, B, own_scale, unit_rows), route, again = trained
        if route == "branch":
            if own_scale is not None and unit_rows:
                own_scale = unit_scale(weight, A, B, own_scale)
            update = conv_branch(padded, A, B, geometry)
            if row_scale is None:
                return beside(plain_convolution(padded, weight, bias, geometry), update, bias, own_scale, dim=1)
            update = beside(plain_convolution(padded, weight, None, geometry), update, None, own_scale, dim=1)
            # Folded before the model went to fewer bits: the rows stay as they are stored.
            scale, shift = (each.view(-1, *[1] * (weight.dim() - 2)) for each in (row_scale, bias))
            return scale * update + shift
        if own_scale is not None:
            row_scale = own_scale if row_scale is None else row_scale * own_scale
        if B.requires_grad and not A.requires_grad and not unit_rows:
            return fixed_conv(padded, weight, bias, A, B, geometry, row_scale)
        if few_launches(padded, route, again):
            kernel = _recorded(padded, weight, A, B, row_scale, unit_rows)
            return plain_convolution(padded, kernel, bias, geometry)
        recall = note_on(padded) if again else None
        return conv(padded, weight, bias, A, B, geometry, row_scale, unit_rows, route, recall)

    return forward


def few_launches(x: Tensor, route: Any, again: bool) -> bool:
    """Whether autograd is to record the adapted weight, which is then kept, instead of a fused operation.

    On a GPU a step of a small model waits for its kernels to be launched, and so they are the fewest: one product for
    the update, the layer's own two gradients, and two products for those of the factors.
    """
    return x.is_cuda and route in ("auto", "dense") and not again


def _recorded(x: Tensor, weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None, unit_rows: bool) -> Tensor:
    with without_autocast(x):
        if unit_rows and row_scale is not None:
            row_scale = unit_scale(weight, A, B, row_scale)
        return adapted_weight(weight, A, B, row_scale)


def padded_input(layer: Any, x: Tensor) -> tuple[Tensor, Geometry]:
    """The layer's geometry, and its input with the padding that a geometry can't express."""
    mode, padding = layer.padding_mode, layer.padding
    spatial = len(layer.kernel_size)
    around: list[int] = []
    if type(layer).__name__ == "Conv2dSame":
        around = _tensorflow_same(layer, x)
    elif mode != "zeros" or isinstance(padding, str):
        # torch keeps the padding of every kind here, last dimension first: before, after.
        around = layer._reversed_padding_repeated_twice
    if around:
        padding = (0,) * spatial
        if mode == "zeros" and around[::2] == around[1::2]:
            padding = tuple(around[::2][::-1])
        else:
            x = F.pad(x, around, mode="constant" if mode == "zeros" else mode)
    return x, Geometry(layer.stride, padding, layer.dilation, layer.groups)


def _tensorflow_same(layer: Any, x: Tensor) -> list[int]:
    """Zeros before and after, last dimension first, so that ceil(size / stride) pixels come out."""
    around = []
    for size, kernel, stride, dilation in zip(
        reversed(x.shape[2:]),
        reversed(layer.kernel_size),
        reversed(layer.stride),
        reversed(layer.dilation),
        strict=True,
    ):
        total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        around += [total // 2, total - total // 2]
    return around
