"""The frozen BatchNorm that a convolution computes with its own kernel and bias; ``folding`` finds where one can be."""

from typing import Any

import torch
from torch import Tensor, nn

_FOLDED = "_visionlora_folded"
_MADE = "_visionlora_made_of_folded"


def fold_into(layer: nn.Module, batchnorm: nn.Module) -> None:
    """From now on, have the convolution compute what the frozen ``batchnorm`` makes of its output."""
    vars(layer)[_FOLDED] = batchnorm


def folded_into(layer: nn.Module) -> Any:
    """The BatchNorm that is folded into the layer, or None."""
    return vars(layer).get(_FOLDED)


def unfold(layer: nn.Module) -> None:
    """The inverse of ``fold_into``."""
    vars(layer).pop(_FOLDED, None)
    vars(layer).pop(_MADE, None)


def scale_and_shift(batchnorm: Any) -> tuple[Tensor, Tensor]:
    """What a frozen BatchNorm does to each channel: ``scale * x + shift``, both (C,)."""
    scale = (batchnorm.running_var + batchnorm.eps).rsqrt()
    if batchnorm.weight is not None:
        scale = scale * batchnorm.weight
    if batchnorm.bias is None:
        return scale, -batchnorm.running_mean * scale
    return scale, torch.addcmul(batchnorm.bias, batchnorm.running_mean, scale, value=-1)


def scale_and_shift_in_step(layer: nn.Module, batchnorm: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """``scale_and_shift``, which on a GPU stays with the layer until one of BatchNorm's tensors is another or changes.

    Four launches less in each step. What is written through ``.data``, past torch's counts of changes, goes unnoticed.
    """
    if not x.is_cuda or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return scale_and_shift(batchnorm)
    return kept_scale_and_shift(layer, batchnorm)


def kept_scale_and_shift(layer: nn.Module, batchnorm: Any) -> tuple[Tensor, Tensor]:
    """``scale_and_shift``, as it was made for this layer if nothing has changed since."""
    given = (batchnorm.running_mean, batchnorm.running_var, batchnorm.weight, batchnorm.bias)
    sources = [each for each in given if each is not None]
    if any(each.requires_grad or each.is_inference() for each in sources):
        return scale_and_shift(batchnorm)
    versions = [each._version for each in sources]
    kept = vars(layer).get(_MADE)
    if kept is not None:
        known, at, made = kept
        if at == versions and all(one is other for one, other in zip(known, sources, strict=True)):
            return made
    made = scale_and_shift(batchnorm)
    vars(layer)[_MADE] = (sources, versions, made)
    return made
