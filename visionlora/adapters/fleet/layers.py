"""Layers of known classes on a mixed batch, computed for all cameras at once."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.adapters import state
from visionlora.adapters.folded import folded_into, scale_and_shift
from visionlora.adapters.forward import is_known_conv, padded_input
from visionlora.adapters.layer import LOW_PRECISION, methods_of
from visionlora.adapters.methods.base import Factors, Method
from visionlora.adapters.norm import after_normalisation
from visionlora.adapters.swap import plain_class
from visionlora.ops.autocast import is_autocast
from visionlora.ops.convolution import plain_convolution
from visionlora.ops.cost import mixed_route
from visionlora.ops.mixed import conv_beside, conv_by_group, linear_beside, linear_by_group
from visionlora.ops.weight import PassingWeight

Group = tuple[str, int, int]
"""A camera, its first image in the batch, and the first one after its last."""


def mixed_layer(layer: Any, x: Tensor, groups: list[Group]) -> Tensor | None:
    """An adapted linear layer or convolution of a known class, each image with the weight of its camera.

    ``x`` is (N * k, ...), k rows for each of the N images, one image after the other.

    None where cameras had better be computed one by one: under autocast, behind a fold, in low precision with a method
    that is no sum.
    """
    weight: Tensor = layer._parameters["weight"]
    if is_autocast(x) or x.dtype != weight.dtype or folded_into(layer) is not None:
        return None
    cameras = _Cameras.of(layer, weight, groups)
    if is_known_conv(plain_class(layer)):
        return _mixed_conv(layer, x, cameras)
    images = x.reshape(groups[-1][2], -1, x.shape[-1])  # (N, M, in)
    y = _mixed_linear(layer, images, cameras)
    return None if y is None else y.view(*x.shape[:-1], len(weight))


def mixed_batchnorm(module: Any, x: Tensor, groups: list[Group]) -> Tensor | None:
    """A frozen BatchNorm of a known class, each image with the scale and shift of its camera; x as above."""
    if is_autocast(x) or x.dim() < 2:
        return None
    base = state.base_tensors(module)
    values = [base | state.values_of(module, camera) for camera, _, _ in groups]
    of_cameras = SimpleNamespace(
        eps=module.eps,
        weight=_stacked(values, "weight"),
        bias=_stacked(values, "bias"),
        running_mean=_stacked(values, "running_mean"),
        running_var=_stacked(values, "running_var"),
    )
    which = _camera_of_row(groups, x)
    shape = (len(x), -1, *[1] * (x.dim() - 2))
    scale, shift = (each.to(x.dtype)[which].view(shape) for each in scale_and_shift(of_cameras))  # (N, C, 1, 1)
    answer: Tensor = after_normalisation(module, torch.addcmul(shift, x, scale))
    return answer


@dataclass(frozen=True)
class _Cameras:
    """A layer's weight, and what the camera of each group does to it.

    Attributes:
        weight: the frozen one, (dim0, ...).
        groups: of the batch.
        methods, factors: of each group's camera; None where it does nothing, or its method has no factors.
    """

    weight: Tensor
    groups: list[Group]
    methods: list[Method | None]
    factors: list[Factors | None]

    @classmethod
    def of(cls, layer: Any, weight: Tensor, groups: list[Group]) -> "_Cameras":
        methods = [methods_of(layer, camera).get("weight") for camera, _, _ in groups]
        factors = [None if method is None else method.all_factors(weight) for method in methods]
        return cls(weight, groups, methods, factors)

    @property
    def rank(self) -> int | None:
        """The largest, where all that cameras do is to add a product of factors, 0 where they do nothing; else None."""
        if any(found is None and method is not None for method, found in zip(self.methods, self.factors, strict=True)):
            return None
        if any(found is not None and found.row_scale is not None for found in self.factors):
            return None
        return max((len(found.A) for found in self.factors if found is not None), default=0)

    @property
    def is_low(self) -> bool:
        """Whether the weight has too few bits to hold an update."""
        return self.weight.dtype in LOW_PRECISION

    def weights(self) -> Iterator[Tensor]:
        """Each camera's adapted weight, to use before the next."""
        for method, found in zip(self.methods, self.factors, strict=True):
            if method is None:
                yield self.weight
            elif found is None:
                yield method(self.weight)
            else:
                with PassingWeight(self.weight, *found) as adapted:
                    yield adapted

    def bank(self, rank: int) -> tuple[Tensor, Tensor]:
        """(cameras, r, ...) and (cameras, dim0, r); missing ranks are zeros."""
        found = [each for each in self.factors if each is not None]
        if len(found) == len(self.factors) and all(len(each.A) == rank for each in found):
            return torch.stack([each.A for each in found]), torch.stack([each.B for each in found])
        A = found[0].A.new_zeros(len(self.factors), rank, *self.weight.shape[1:])
        B = found[0].B.new_zeros(len(self.factors), len(self.weight), rank)
        for number, each in enumerate(self.factors):
            if each is not None:
                A[number, : len(each.A)] = each.A
                B[number, :, : len(each.A)] = each.B
        return A, B


def _mixed_linear(layer: Any, x: Tensor, cameras: _Cameras) -> Tensor | None:
    """x (N, M, in) -> (N, M, out)."""
    weight, groups, rank = cameras.weight, cameras.groups, cameras.rank
    if rank == 0:
        return F.linear(x, weight, layer.bias)
    if rank and (cameras.is_low or mixed_route(weight.shape, rank, 1, x.shape[1], len(x), len(groups)) == "beside"):
        A, B = cameras.bank(rank)
        if len({stop - start for _, start, stop in groups}) > 1:
            which = _camera_of_row(groups, x)
            A, B = A[which], B[which]
        return linear_beside(x, weight, layer.bias, A, B)
    if cameras.is_low:
        return None
    return linear_by_group(x, cameras.weights(), layer.bias, [(start, stop) for _, start, stop in groups])


def _mixed_conv(layer: Any, x: Tensor, cameras: _Cameras) -> Tensor | None:
    """x (N * k, Cin, ...) -> (N * k, Cout, ...)."""
    weight, groups, rank = cameras.weight, cameras.groups, cameras.rank
    x, geometry = padded_input(layer, x)
    if rank == 0:
        return plain_convolution(x, weight, layer.bias, geometry)
    pixels = math.prod(-(-size // step) for size, step in zip(x.shape[2:], geometry.stride, strict=True))
    route = mixed_route(weight.shape, rank or 1, geometry.groups, pixels, len(x), len(groups))
    if rank and (cameras.is_low or route == "beside"):
        A, B = cameras.bank(rank)
        if len(groups) < len(x):
            which = _camera_of_row(groups, x)
            A, B = A[which], B[which]
        return conv_beside(x, weight, layer.bias, A, B, geometry)
    if cameras.is_low:
        return None
    each = len(x) // groups[-1][2]
    spans = [(start * each, stop * each) for _, start, stop in groups]
    return conv_by_group(x, cameras.weights(), layer.bias, spans, geometry)


def _stacked(values: list[dict[str, Tensor]], name: str) -> Tensor | None:
    return torch.stack([each[name] for each in values]) if name in values[0] else None


def _camera_of_row(groups: list[Group], x: Tensor) -> Tensor:
    """(rows of x,) number of the group that each is of."""
    each = len(x) // groups[-1][2]
    sizes = torch.tensor([each * (stop - start) for _, start, stop in groups], device=x.device)
    return torch.repeat_interleave(torch.arange(len(groups), device=x.device), sizes)
