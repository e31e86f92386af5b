"""Feature pyramids over a timm model: one map per level, where level l has a stride of 2^l pixels."""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from visionlora.errors import InputError, some
from visionlora.models.timm_features import Body, feature_maps, probe

COARSEST = 5
"""The coarsest level that is made of the body's own maps; coarser ones are convolved from it."""


class TimmPyramid(nn.Module):
    """A timm model as ``body``, under its own parameter names, and a pyramid ``fpn`` over its maps.

    (N, 3, H, W), both sides multiples of 32 -> ``{"p3": (N, out_channels, H / 8, W / 8), ...}``, finest first.

    Args:
        body: of a ``timm_features.Body``.
        maps: level -> index of the body's map, finest first.
        fpn: ``{"p3": map, ...}`` -> the pyramid.
        out_channels: of every map of the pyramid.
        plain: the body is a plain ViT, whose last norm goes over its one map.
        scale: of the images before the body, so that patches of 14 pixels lie on a grid of 16.
    """

    def __init__(
        self, body: nn.Module, maps: dict[int, int], fpn: nn.Module, out_channels: int, plain: bool, scale: float
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.maps = maps
        self.out_channels = out_channels
        self.plain = plain
        self.scale = scale

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See the class."""
        if self.scale != 1:
            size = [round(side * self.scale) for side in images.shape[-2:]]
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        found = feature_maps(self.body, images, list(self.maps.values()), norm=self.plain)
        pyramid: dict[str, Tensor] = self.fpn(OrderedDict(zip(_names(self.maps), found, strict=True)))
        return pyramid


class CoarserLevels(ExtraFPNBlock):
    """Each level a 3x3 convolution of stride 2 over the one before (RetinaNet, Lin et al. 2017, arXiv:1708.02002)."""

    def __init__(self, levels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.names = _names(levels)
        convs = [nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in levels]
        for conv in convs:
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.constant_(conv.bias, 0)  # type: ignore[arg-type]
        self.convs = nn.ModuleList(convs)

    def forward(
        self,
        results: list[Tensor],
        x: list[Tensor],  # noqa: ARG002 - torchvision's interface; these would be the body's maps
        names: list[str],
    ) -> tuple[list[Tensor], list[str]]:
        """The maps ``results``, finest first, and their names, with the coarser ones at the end."""
        results = list(results)
        for number, conv in enumerate(self.convs):
            results.append(conv(results[-1].relu() if number else results[-1]))
        return results, names + self.names


class SimplePyramid(nn.Module):
    """All levels from one map of stride 2^level (ViTDet, Li et al. 2022, arXiv:2203.16527, section 3)."""

    def __init__(self, level: int, levels: Sequence[int], channels: int, out_channels: int, coarser: CoarserLevels):
        super().__init__()
        self.names = _names(levels)
        self.layer_blocks = nn.ModuleList(_from_one_map(level - target, channels, out_channels) for target in levels)
        self.extra_blocks = coarser

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, channels, h, w)} -> {"p3": (N, out_channels, ...), ...}."""
        (last,) = x.values()
        results, names = self.extra_blocks([block(last) for block in self.layer_blocks], [last], self.names)
        return OrderedDict(zip(names, results, strict=True))


def build_pyramid(name: str, body: Body, levels: Sequence[int], channels: int) -> tuple[TimmPyramid, list[str]]:
    """The pyramid over a body, and the names of the body's layers that it doesn't depend on.

    Args:
        name: of the body, for messages.
        body: a CNN or hierarchical transformer (Lin et al. 2017, arXiv:1612.03144), or a plain ViT.
        levels: consecutive, finest first.
        channels: of every map of the pyramid.

    Raises:
        InputError: the body has no maps for these levels, or does not take images of any size.
    """
    plain = len(set(body.strides)) == 1
    own = [level for level in levels if level <= COARSEST]
    coarser = CoarserLevels([level for level in levels if level > COARSEST], channels)
    scale, fpn = 1.0, nn.Module()
    if plain:
        level, last = round(math.log2(body.strides[-1])), len(body.strides) - 1
        maps = {level: last}
        scale = body.strides[-1] / 2**level
        fpn = SimplePyramid(level, own, body.channels[last], channels, coarser)
    else:
        at = {stride: index for index, stride in enumerate(body.strides)}
        if not own or any(2**level not in at for level in own):
            raise InputError(
                f"model.levels {some(levels)}: {name} has maps of strides {some(at, 8)}, "
                f"and level l needs 2^l (up to {COARSEST}); choose others"
            )
        maps = {level: at[2**level] for level in own}
        fpn = FeaturePyramidNetwork([body.channels[index] for index in maps.values()], channels, coarser)
    unused = probe(name, body, list(maps.values()), plain)
    return TimmPyramid(body.model, maps, fpn, channels, plain, scale), unused


def _from_one_map(doublings: int, channels: int, out_channels: int) -> nn.Sequential:
    """Double a map's sides so many times (halve, if negative), then a 1x1 and a 3x3 convolution with LayerNorm."""
    layers: list[nn.Module] = []
    for number in range(doublings):
        layers += [LayerNorm2d(channels), nn.GELU()] if number else []
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    if doublings < 0:
        layers.append(nn.MaxPool2d(2**-doublings))
    layers += [nn.Conv2d(channels, out_channels, 1, bias=False), LayerNorm2d(out_channels)]
    layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels)]
    return nn.Sequential(*layers)


def _names(levels: Sequence[int] | dict[int, int]) -> list[str]:
    return [f"p{level}" for level in levels]
