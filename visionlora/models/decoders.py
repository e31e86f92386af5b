"""Decoders: maps of a backbone with several strides in, logits at the finest map's size out.

They follow the papers, with three things in common: GroupNorm where those have BatchNorm, so that a batch of one image
trains as well as any; 1x1 convolutions with a norm before maps meet, for backbones differ in the scale of their
maps; and each map is resized to the size of the one that it meets, so that no stride is taken for granted.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

GROUP = 8
"""Channels in each group of a GroupNorm; every width here is a multiple of it."""


class Unet(nn.Module):
    """Ronneberger et al. 2015 (arXiv:1505.04597): upsample, concatenate the finer map, convolve twice, and so on.

    Args:
        in_channels, strides: of the maps, finest first.
        channels: at a stride of 4; half as many at 2, twice as many at 8, and so on.
        classes: outputs.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        widths = [channels * stride // 4 for stride in strides[:-1]]
        below = [*widths[1:], in_channels[-1]]
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(skip + under, width, 3), conv(width, width, 3))
            for skip, under, width in zip(in_channels[:-1], below, widths, strict=True)
        )
        self.classifier = classifier(widths[0], classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(N, C, h, w), ...], finest first -> (N, classes, h, w) of the finest."""
        x = maps[-1]
        for block, skip in zip(reversed(self.blocks), reversed(maps[:-1]), strict=True):
            x = block(torch.cat([skip, resized(x, skip)], dim=1))
        logits: Tensor = self.classifier(x)
        return logits


class SemanticFPN(nn.Module):
    """The semantic branch of Panoptic FPN (Kirillov et al. 2019, arXiv:1901.02446, section 3).

    A pyramid; each of its maps is convolved and upsampled by 2 until it has the finest's size; then
    their mean, which keeps the scale that the paper's sum does not.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.fpn = FeaturePyramidNetwork(list(in_channels), channels, norm_layer=group_norm)
        self.branches = nn.ModuleList(
            nn.ModuleList(conv(channels, channels, 3) for _ in range(max(doublings, 1)))
            for doublings in range(len(in_channels))
        )
        self.classifier = classifier(channels, classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(N, C, h, w), ...], finest first -> (N, classes, h, w) of the finest."""
        pyramid = run_fpn(self.fpn, maps)
        found = []
        for level, (branch, x) in enumerate(zip(self.branches, pyramid, strict=True)):
            for number, block in enumerate(branch.children()):
                x = block(x)
                if level:
                    x = resized(x, pyramid[level - number - 1])
            found.append(x)
        logits: Tensor = self.classifier(sum(found) / len(found))
        return logits


class DeepLabV3Plus(nn.Module):
    """Chen et al. 2018 (arXiv:1802.02611): atrous spatial pyramid pooling on the coarsest map, refined by the finest.

    Args:
        in_channels: of the finest and the coarsest map.
        channels: of each branch.
        classes: outputs.
        rates: of dilation, in cells of the coarsest map.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        fine, coarse = in_channels
        self.branches = nn.ModuleList([conv(coarse, channels, 1)])
        self.branches.extend(separable(coarse, channels, rate) for rate in rates)
        self.pooled = conv(coarse, channels, 1)
        self.project = conv((len(rates) + 2) * channels, channels, 1)
        self.low = conv(fine, channels // 2, 1)
        self.fuse = separable(channels + channels // 2, channels, 1)
        self.classifier = classifier(channels, classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(N, C, h, w), ...], finest first -> (N, classes, h, w) of the finest."""
        fine, coarse = maps
        found = [branch(coarse) for branch in self.branches]
        found.append(self.pooled(coarse.mean(dim=(2, 3), keepdim=True)).expand_as(found[0]))
        x = self.project(torch.cat(found, dim=1))
        logits: Tensor = self.classifier(self.fuse(torch.cat([resized(x, fine), self.low(fine)], dim=1)))
        return logits


class UperNet(nn.Module):
    """Xiao et al. 2018 (arXiv:1807.10221): pyramid pooling on the coarsest map, a pyramid, and all its maps fused."""

    POOLED = (1, 2, 3, 6)
    """Cells per side of the pooled maps."""

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        coarse = in_channels[-1]
        self.pooled = nn.ModuleList(nn.Sequential(conv(coarse, channels, 1)) for _ in self.POOLED)
        self.bottleneck = conv(coarse + len(self.POOLED) * channels, channels, 3)
        self.fpn = FeaturePyramidNetwork([*in_channels[:-1], channels], channels, norm_layer=group_norm)
        self.fuse = conv(len(in_channels) * channels, channels, 3)
        self.classifier = classifier(channels, classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(N, C, h, w), ...], finest first -> (N, classes, h, w) of the finest."""
        coarse = maps[-1]
        found = [coarse]
        for cells, block in zip(self.POOLED, self.pooled, strict=True):
            found.append(resized(block(F.adaptive_avg_pool2d(coarse, cells)), coarse))
        pyramid = run_fpn(self.fpn, [*maps[:-1], self.bottleneck(torch.cat(found, dim=1))])
        logits: Tensor = self.classifier(self.fuse(together(pyramid)))
        return logits


class SegFormer(nn.Module):
    """Xie et al. 2021 (arXiv:2105.15203, section 3.2): every map through a 1x1 convolution, and all of them fused."""

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), group_norm(channels)) for width in in_channels
        )
        self.fuse = conv(len(in_channels) * channels, channels, 1)
        self.classifier = classifier(channels, classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(N, C, h, w), ...], finest first -> (N, classes, h, w) of the finest."""
        projected = [layer(x) for layer, x in zip(self.project, maps, strict=True)]
        logits: Tensor = self.classifier(self.fuse(together(projected)))
        return logits


class Linear(nn.Module):
    """One 1x1 convolution over the last map of a plain ViT."""

    def __init__(self, in_channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.classifier = classifier(in_channels[-1], classes)
        # Pretrained features are larger: a ViT-Tiny's about 4.
        nn.init.normal_(self.classifier.weight, std=0.01)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(N, C, h, w)] -> (N, classes, h, w)."""
        logits: Tensor = self.classifier(maps[-1])
        return logits


class Multilevel(nn.Module):
    """Maps of several blocks of a plain ViT, fused, and upsampled twice by 2.

    As in SETR (Zheng et al. 2021, arXiv:2012.15840, sections 3.3: MLA's several maps, PUP's upsampling in steps).
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(conv(width, channels, 1) for width in in_channels)
        self.fuse = conv(len(in_channels) * channels, channels, 1)
        self.steps = nn.ModuleList(conv(channels, channels, 3) for _ in range(2))
        self.classifier = classifier(channels, classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(N, C, h, w), ...] -> (N, classes, 4 h, 4 w)."""
        x = self.fuse(torch.cat([layer(x) for layer, x in zip(self.project, maps, strict=True)], dim=1))
        for step in self.steps:
            x = step(F.interpolate(x, scale_factor=2, mode="bilinear"))
        logits: Tensor = self.classifier(x)
        return logits


def conv(in_channels: int, channels: int, side: int) -> nn.Sequential:
    """Convolution that keeps the map's size, GroupNorm, ReLU."""
    layer = nn.Conv2d(in_channels, channels, side, padding=side // 2, bias=False)
    return nn.Sequential(layer, group_norm(channels), nn.ReLU(inplace=True))


def separable(in_channels: int, channels: int, rate: int) -> nn.Sequential:
    """A 3x3 depthwise convolution dilated by ``rate``, and ``conv`` of side 1."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, *conv(in_channels, channels, 1))


def group_norm(channels: int) -> nn.GroupNorm:
    """With ``GROUP`` channels per group."""
    return nn.GroupNorm(channels // GROUP, channels)


def classifier(channels: int, classes: int) -> nn.Conv2d:
    """The last 1x1 convolution, over a map whose values are about 1: the logits' are then about 0.5.

    With the smaller ones that detectors start with, Adam takes a hundred steps to bring the weights to their size.
    """
    layer = nn.Conv2d(channels, classes, 1)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def resized(x: Tensor, like: Tensor) -> Tensor:
    """(N, C, h, w) at the height and width of ``like``."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear")


def together(maps: Sequence[Tensor]) -> Tensor:
    """The maps at the first one's size, concatenated: (N, sum of C, h, w)."""
    return torch.cat([maps[0], *(resized(x, maps[0]) for x in maps[1:])], dim=1)


def run_fpn(fpn: FeaturePyramidNetwork, maps: Sequence[Tensor]) -> list[Tensor]:
    """torchvision's pyramid over plain lists."""
    return list(fpn(OrderedDict((str(number), x) for number, x in enumerate(maps))).values())
