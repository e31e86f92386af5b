"""A fleet as one plain model with a bank of adapters in it: (images, camera) -> logits, a camera's index per image.

What every camera has in common is computed for all images at once. Beside a convolution the narrow part of all cameras'
updates is computed, and all but an image's own is zero: a graph can't have as many groups as its batch has images.
"""

import copy
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionlora.adapters import state
from visionlora.adapters.fleet.fleet import Fleet
from visionlora.adapters.folded import scale_and_shift
from visionlora.adapters.forward import is_known, is_known_conv, padded_input
from visionlora.adapters.layer import is_adapted, methods_of
from visionlora.adapters.methods.base import Factors
from visionlora.adapters.model import detach
from visionlora.adapters.norm import after_normalisation, is_known_batchnorm
from visionlora.adapters.swap import plain_class
from visionlora.errors import InputError

ABSENT = -1e4
"""The logit of a class that a camera has not and another has."""


class Chosen:
    """The cameras' indices (N,) of the images under way."""

    def __init__(self) -> None:
        self.camera = torch.zeros(1, dtype=torch.int64)


class Banked(nn.Module):
    """``model`` with its banks, as a function of images (N, 3, H, W) and cameras' indices (N,) int64."""

    def __init__(self, model: nn.Module, chosen: Chosen) -> None:
        super().__init__()
        self.model = model
        self.chosen = chosen

    def forward(self, images: Tensor, camera: Tensor) -> Tensor:
        """See the class."""
        self.chosen.camera = camera
        logits: Tensor = self.model(images)
        return logits


class BankedLinear(nn.Module):
    """An adapted linear layer: A (cameras, r, in), B (cameras, out, r)."""

    A: Tensor
    B: Tensor

    def __init__(self, layer: nn.Module, A: Tensor, B: Tensor, chosen: Chosen) -> None:
        super().__init__()
        self.layer, self.chosen = layer, chosen
        self.register_buffer("A", A)
        self.register_buffer("B", B)

    def forward(self, x: Tensor) -> Tensor:
        """(N * k, ..., in) -> (N * k, ..., out), k rows for each image."""
        camera = self.chosen.camera
        y: Tensor = self.layer(x)
        rows = x.reshape(camera.shape[0], -1, x.shape[-1])
        z = rows @ self.A[camera].transpose(1, 2)  # (N, M, r)
        return y + (z @ self.B[camera].transpose(1, 2)).reshape(y.shape)


class BankedConv(nn.Module):
    """An adapted convolution: A (cameras, r, Cin / groups, ...), B (cameras, Cout, r).

    As two convolutions with the factors of all cameras, and zeros between them for all but an image's own.
    """

    layer: Any
    narrow: Tensor
    wide: Tensor
    own: Tensor

    def __init__(self, layer: Any, A: Tensor, B: Tensor, chosen: Chosen) -> None:
        super().__init__()
        self.layer, self.chosen = layer, chosen
        cameras, rank, groups, ones = len(A), A.shape[1], layer.groups, [1] * (A.dim() - 3)
        self.register_buffer("narrow", A.flatten(0, 1).repeat(groups, 1, *ones))  # (groups * cameras * r, ...)
        self.register_buffer("wide", B.transpose(0, 1).flatten(1).view(B.shape[1], -1, *ones))  # (Cout, cameras * r, 1)
        own = torch.eye(cameras, dtype=A.dtype).repeat_interleave(rank, dim=1).repeat(1, groups)
        self.register_buffer("own", own.view(cameras, -1, *ones))  # (cameras, groups * cameras * r, 1, ...)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, ...) -> (N, Cout, ...)."""
        y: Tensor = self.layer(x)
        padded, geometry = padded_input(self.layer, x)
        function = (F.conv1d, F.conv2d, F.conv3d)[self.narrow.dim() - 3]
        z = function(padded, self.narrow, None, *geometry) * self.own[self.chosen.camera]
        return y + function(z, self.wide, groups=self.layer.groups)


class BankedHead(nn.Module):
    """A linear head of each camera: weight (cameras, classes, in), bias (cameras, classes)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, chosen: Chosen) -> None:
        super().__init__()
        self.chosen = chosen
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, ..., in) -> (N, ..., classes)."""
        camera = self.chosen.camera
        rows = x.reshape(camera.shape[0], -1, x.shape[-1])
        y = rows @ self.weight[camera].transpose(1, 2) + self.bias[camera][:, None]
        return y.reshape(*x.shape[:-1], y.shape[-1])


class BankedNorm(nn.Module):
    """A frozen BatchNorm of each camera: scale and shift (cameras, C)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.Module, scale: Tensor, shift: Tensor, chosen: Chosen) -> None:
        super().__init__()
        self.norm, self.chosen = norm, chosen
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same."""
        shape = (x.shape[0], -1, *[1] * (x.dim() - 2))
        scale, shift = self.scale[self.chosen.camera], self.shift[self.chosen.camera]
        answer: Tensor = after_normalisation(self.norm, x * scale.reshape(shape) + shift.reshape(shape))
        return answer


@torch.no_grad()
def banked(fleet: Fleet, images: Tensor) -> Banked:
    """A fleet's cameras in one plain model; the fleet stays as it is, and shows the base.

    Args:
        fleet: of classifiers.
        images: (N, 3, H, W); only their shape counts.

    Raises:
        InputError: an adapter's method is no sum of factors, or a part of the model can only be run camera by camera.
    """
    layers, chosen = fleet.apart(images), Chosen()
    fleet.switch(None)
    model = detach(copy.deepcopy(fleet.model))
    for path, layer in layers.items():
        plain = model.get_submodule(path)
        model.set_submodule(path, _bank_of(path, layer, plain, fleet.cameras, chosen))
    return Banked(model.eval(), chosen).requires_grad_(False)


def _bank_of(path: str, layer: nn.Module, plain: nn.Module, cameras: list[str], chosen: Chosen) -> nn.Module:
    """What takes the place of a layer, ``plain`` in the copy without adapters."""
    base, owned = plain_class(layer), state.owned_of(layer) is not None
    if is_adapted(layer) and not owned and is_known(base):
        A, B = _factors(path, layer, cameras)
        return BankedConv(plain, A, B, chosen) if is_known_conv(base) else BankedLinear(plain, A, B, chosen)
    if owned and not is_adapted(layer):
        values = [{**state.base_tensors(layer), **state.values_of(layer, camera)} for camera in cameras]
        if is_known_batchnorm(base):
            parts = [
                scale_and_shift(SimpleNamespace(**{"weight": None, "bias": None, **own, "eps": layer.eps}))
                for own in values
            ]
            scale, shift = (torch.stack(column) for column in zip(*parts, strict=True))
            return BankedNorm(plain, scale, shift, chosen)
        if is_known(base) and not is_known_conv(base):
            return BankedHead(*_heads(values), chosen)
    raise InputError(
        f"'{path}', a {base.__name__}, has no bank in one graph; export each camera by itself (visionlora export)"
    )


def _factors(path: str, layer: nn.Module, cameras: list[str]) -> tuple[Tensor, Tensor]:
    """(cameras, r, ...) and (cameras, dim0, r); what a camera lacks is zeros."""
    weight = layer._parameters["weight"]
    assert weight is not None
    found: list[Factors | None] = []
    for camera in cameras:
        method = methods_of(layer, camera).get("weight")
        factors = None if method is None else method.all_factors(weight)
        if method is not None and (factors is None or factors.row_scale is not None):
            raise InputError(
                f"'{camera}' has a {type(method).__name__} on '{path}', which is no sum of factors and has no bank in "
                f"one graph; export this camera by itself (visionlora export)"
            )
        found.append(factors)
    rank = max(len(each.A) for each in found if each is not None)
    A = weight.new_zeros(len(cameras), rank, *weight.shape[1:])
    B = weight.new_zeros(len(cameras), len(weight), rank)
    for number, each in enumerate(found):
        if each is not None:
            A[number, : len(each.A)], B[number, :, : len(each.A)] = each.A, each.B
    return A, B


def _heads(values: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """(cameras, classes, in) and (cameras, classes), as many classes as the camera with the most has."""
    most = max(len(own["weight"]) for own in values)
    weight = values[0]["weight"].new_zeros(len(values), most, values[0]["weight"].shape[1])
    bias = weight.new_full((len(values), most), ABSENT)
    for number, own in enumerate(values):
        count = len(own["weight"])
        weight[number, :count] = own["weight"]
        bias[number, :count] = own.get("bias", 0.0)
    return weight, bias
