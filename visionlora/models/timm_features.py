"""Feature maps of a plain timm model that keeps timm's own parameter names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.errors import InputError, did_you_mean
from visionlora.models import timm_models
from visionlora.models.weights import first_line


@dataclass(frozen=True)
class Body:
    """A timm model without classifier, and the maps that its ``forward_intermediates`` can give.

    Attributes:
        model: takes images of any size, if need be in multiples of its strides.
        strides: pixels per cell of each map, by index; equal ones in a plain ViT (one per block).
        channels: of each map.
        data_config: as ``timm.data.resolve_data_config`` gives it: mean, std ...
    """

    model: nn.Module
    strides: list[int]
    channels: list[int]
    data_config: dict[str, Any]


def create_body(name: str, pretrained: bool, checkpoint: Path | None) -> Body:
    """Create a timm model for its feature maps.

    Args:
        name: a timm name, with a tag if you like.
        pretrained: take weights from timm's hub, unless there is a ``checkpoint``.
        checkpoint: a local file of weights for this model (safetensors or pth), with or without its classifier.

    Raises:
        InputError: unknown name, weights that don't fit or can't be fetched, or a model without feature maps.
    """
    if not timm_models.is_known(name):
        raise InputError(
            f"unknown model.backbone '{name}'{did_you_mean(name, timm_models.names())}; "
            f"timm.list_models() shows the names"
        )
    try:
        # A transformer then resamples its position embedding for each image, and its weights stay as they are.
        model, _, config = timm_models.create(name, 0, pretrained, checkpoint, None, {"dynamic_img_size": True})
    except InputError as error:
        if not isinstance(error.__cause__, TypeError):
            raise
        model, _, config = timm_models.create(name, 0, pretrained, checkpoint, None, {})
    if not hasattr(model, "forward_intermediates"):
        raise InputError(f"model.backbone {name}: timm gives no feature maps of it (no forward_intermediates)")
    maps = list(model.feature_info)  # type: ignore[arg-type]
    return Body(model, [info["reduction"] for info in maps], [info["num_chs"] for info in maps], config)


def feature_maps(model: nn.Module, images: Tensor, indices: Sequence[int], norm: bool) -> list[Tensor]:
    """The maps of ``indices`` (ascending), each (N, C, H / stride, W / stride).

    Args:
        model: of a ``Body``.
        images: (N, 3, H, W).
        indices: into ``Body.strides``.
        norm: apply the model's last norm to each map (plain ViT).
    """
    maps: list[Tensor] = model.forward_intermediates(  # type: ignore[operator]
        images, indices=list(indices), norm=norm, stop_early=True, intermediates_only=True
    )
    return maps


def probe(name: str, body: Body, indices: Sequence[int], norm: bool) -> list[str]:
    """Run the body once, at a size that it was not made for.

    Returns:
        names of the layers that these maps don't depend on (such as a last convolution before the classifier).

    Raises:
        InputError: the model doesn't take images of any size.
    """
    step = max(body.strides[index] for index in indices)
    size = (5 * step, 7 * step)
    model = body.model.eval()
    try:
        maps = feature_maps(model, torch.zeros(1, 3, *size), indices, norm)
        shapes = [tuple(found.shape[1:]) for found in maps]
    except (RuntimeError, AssertionError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"model.backbone {name}: does not take images of any size ({first_line(error)}); "
            f"take a CNN, a Swin or a plain ViT"
        ) from error
    expected = [(body.channels[i], size[0] // body.strides[i], size[1] // body.strides[i]) for i in indices]
    if shapes != expected:
        raise InputError(
            f"model.backbone {name}: its maps of {size} are {shapes}, not {expected}; take a CNN, a Swin or a plain ViT"
        )
    parameters = dict(model.named_parameters())
    total = torch.stack([found.sum() for found in maps]).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    model.train()
    unused = {path for path, gradient in zip(parameters, gradients, strict=True) if gradient is None}
    layers: dict[str, set[str]] = {}
    for path in parameters:
        layers.setdefault(path.rpartition(".")[0], set()).add(path)
    return [layer for layer, paths in layers.items() if paths <= unused]
