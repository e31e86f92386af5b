"""A timm backbone with a decoder, for a class per pixel."""

import math
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from visionlora.errors import InputError, some
from visionlora.models.decoders import GROUP, DeepLabV3Plus, Linear, Multilevel, SegFormer, SemanticFPN, Unet, UperNet
from visionlora.models.timm_features import Body, create_body, feature_maps, probe

OVER_PYRAMIDS = ("unet", "fpn", "deeplabv3plus", "upernet", "segformer")
"""Over a CNN or a transformer with maps of several strides."""
OVER_PLAIN = ("linear", "multilevel")
"""Over a plain ViT."""
NAMES = (*OVER_PYRAMIDS, *OVER_PLAIN)
CHANNELS = 64

_STRIDES = (4, 8, 16, 32)
"""Of the maps that decoders take, as far as the backbone has them; U-Net takes one of 2 as well."""


class TimmSegmenter(nn.Module):
    """A timm model as ``backbone``, under its own parameter names, and a ``decoder`` over its maps.

    (N, 3, H, W) -> (N, classes, H, W). Images are padded with zeros, at the right and at the bottom, to multiples of
    the coarsest stride, so that every map's cells lie where the image says; the padding's logits are cut off.

    Args:
        backbone: of a ``timm_features.Body``.
        maps: indices of the body's maps, ascending.
        decoder: maps -> (N, classes, h, w).
        plain: the backbone is a plain ViT, whose last norm goes over each map.
        step: pixels, the coarsest stride.
    """

    def __init__(self, backbone: nn.Module, maps: list[int], decoder: nn.Module, plain: bool, step: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.maps = maps
        self.plain = plain
        self.step = step

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.step, 0, -height % self.step))
        logits = self.decoder(feature_maps(self.backbone, padded, self.maps, norm=self.plain))
        return F.interpolate(logits, padded.shape[-2:], mode="bilinear")[..., :height, :width]


def create(
    name: str, num_classes: int, backbone: str, pretrained: bool, checkpoint: Path | None, channels: int | None
) -> tuple[nn.Module, list[str], list[str], dict[str, Any]]:
    """The decoder ``name`` over ``backbone``: model, head, unused, data config; see ``create_segmenter``."""
    _check(name, channels)
    body = create_body(backbone, pretrained, checkpoint)
    plain = len(body.strides) > 1 and len(set(body.strides)) == 1
    fitting = OVER_PLAIN if plain else OVER_PYRAMIDS
    if name not in fitting:
        kind = "a plain transformer, all of whose maps have one stride" if plain else "not a plain transformer"
        raise InputError(f"model {name} does not fit {backbone}, which is {kind}; take {some(fitting)}")
    maps = _plain_maps(name, body) if plain else _pyramid_maps(name, backbone, body)
    unused = probe(backbone, body, maps, plain)
    for layer in unused:
        body.model.get_submodule(layer).requires_grad_(False)
    decoder = _decoder(name, body, maps, channels or CHANNELS, num_classes)
    model = TimmSegmenter(body.model, maps, decoder, plain, body.strides[maps[-1]])
    return model, ["decoder"], [f"backbone.{layer}" for layer in unused], body.data_config


def _check(name: str, channels: int | None) -> None:
    # Half of them go in groups too.
    step = 2 * GROUP
    if channels is not None and name == "linear":
        raise InputError("model linear has no model.channels; leave them out, or take multilevel")
    if channels is not None and (channels < step or channels % step):
        raise InputError(f"model.channels is {channels}; give a multiple of {step}")


def _pyramid_maps(name: str, backbone: str, body: Body) -> list[int]:
    at = {stride: index for index, stride in enumerate(body.strides)}
    wanted = (2, *_STRIDES) if name == "unet" else _STRIDES
    found = [at[stride] for stride in wanted if stride in at]
    if 4 not in at or len(found) < 2:
        raise InputError(
            f"model {name} needs maps of a stride of 4 and coarser ones, and those of {backbone} have {some(at, 8)}; "
            f"take another model.backbone"
        )
    return [found[0], found[-1]] if name == "deeplabv3plus" else found


def _plain_maps(name: str, body: Body) -> list[int]:
    """The last block's, or the last ones of four equal parts."""
    blocks = len(body.strides)
    parts = (4,) if name == "linear" else (1, 2, 3, 4)
    return sorted({math.ceil(blocks * part / 4) - 1 for part in parts})


def _decoder(name: str, body: Body, maps: list[int], channels: int, num_classes: int) -> nn.Module:
    widths, strides = [body.channels[index] for index in maps], [body.strides[index] for index in maps]
    if name == "unet":
        return Unet(widths, strides, channels, num_classes)
    if name == "deeplabv3plus":
        # The paper's 6, 12 and 18 are for a stride of 16.
        return DeepLabV3Plus(widths, channels, num_classes, [rate * 16 // strides[-1] for rate in (6, 12, 18)])
    if name == "linear":
        return Linear(widths, num_classes)
    decoder = {"fpn": SemanticFPN, "upernet": UperNet, "segformer": SegFormer, "multilevel": Multilevel}[name]
    return decoder(widths, channels, num_classes)
