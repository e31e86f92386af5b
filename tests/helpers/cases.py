"""The table of layers and tiny models that the identity tests run over."""

from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
import torchvision
from timm.layers import Conv2dSame, ScaledStdConv2d, StdConv2d
from timm.layers.std_conv import StdConv2dSame
from torch import Tensor, nn


class Attend(nn.Module):
    """Self-attention through ``nn.MultiheadAttention``, one tensor in, one out."""

    def __init__(self, **kwargs: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 4, batch_first=True, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        other = x[..., : self.attn.kdim]
        return self.attn(x, other, other, need_weights=False)[0]


@dataclass(frozen=True)
class LayerCase:
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


IMAGE = (2, 8, 9, 9)
LAYERS = [
    LayerCase("linear", lambda: nn.Linear(8, 6), (2, 8)),
    LayerCase("linear_3d_input", lambda: nn.Linear(8, 6), (2, 5, 8)),
    LayerCase("linear_no_bias_3d_input", lambda: nn.Linear(8, 6, bias=False), (2, 5, 8)),
    LayerCase("conv1d", lambda: nn.Conv1d(8, 6, 3), (2, 8, 9)),
    LayerCase("conv1d_dilated", lambda: nn.Conv1d(8, 6, 3, dilation=2, padding=2), (2, 8, 9)),
    LayerCase("conv2d", lambda: nn.Conv2d(8, 6, 3), IMAGE),
    LayerCase("conv2d_1x1_stride", lambda: nn.Conv2d(8, 6, 1, stride=2), IMAGE),
    LayerCase("conv2d_rectangular", lambda: nn.Conv2d(8, 6, (1, 5), stride=(2, 1), padding=(0, 2)), IMAGE),
    LayerCase("conv2d_grouped", lambda: nn.Conv2d(8, 6, 3, groups=2), IMAGE),
    LayerCase("conv2d_depthwise", lambda: nn.Conv2d(8, 16, 3, groups=8), IMAGE),
    LayerCase("conv2d_reflect", lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    LayerCase("conv2d_circular", lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular"), IMAGE),
    LayerCase("conv2d_replicate", lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="replicate"), IMAGE),
    LayerCase("conv2d_same_string", lambda: nn.Conv2d(8, 6, 4, padding="same"), IMAGE),
    LayerCase("conv3d", lambda: nn.Conv3d(4, 6, 3, padding=1), (2, 4, 5, 5, 5)),
    LayerCase("conv_transpose1d", lambda: nn.ConvTranspose1d(8, 6, 3, stride=2), (2, 8, 9)),
    LayerCase("conv_transpose2d", lambda: nn.ConvTranspose2d(8, 6, 3, stride=2, output_padding=1), IMAGE),
    LayerCase("conv_transpose2d_grouped", lambda: nn.ConvTranspose2d(8, 6, 3, groups=2), IMAGE),
    LayerCase("conv_transpose3d", lambda: nn.ConvTranspose3d(4, 6, 2), (2, 4, 5, 5, 5)),
    LayerCase("timm_conv2d_same", lambda: Conv2dSame(8, 6, 3, stride=2), IMAGE),
    LayerCase("timm_std_conv2d", lambda: StdConv2d(8, 6, 3), IMAGE),
    LayerCase("timm_std_conv2d_same", lambda: StdConv2dSame(8, 6, 3, stride=2), IMAGE),
    LayerCase("timm_scaled_std_conv2d", lambda: ScaledStdConv2d(8, 6, 3), IMAGE),
    LayerCase("multihead", lambda: Attend(), (2, 5, 16)),
    LayerCase("multihead_separate", lambda: Attend(kdim=12, vdim=12), (2, 5, 16)),
]


@dataclass(frozen=True)
class ModelCase:
    name: str
    make: Callable[[], nn.Module]
    size: int


def _timm(name: str, size: int, **kwargs: object) -> ModelCase:
    return ModelCase(f"timm_{name}", lambda: timm.create_model(name, num_classes=5, **kwargs), size)


def _vision_transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=5)


def _swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [2, 2], num_classes=5)


def _shufflenet() -> nn.Module:
    return torchvision.models.ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 64], num_classes=5)


VIT = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4}
MODELS = [
    _timm("test_resnet", 64, zero_init_last=False),
    _timm("resnet10t", 64, zero_init_last=False),
    _timm("test_byobnet", 64),
    _timm("test_convnext", 64),
    _timm("test_efficientnet", 64),
    _timm("tf_efficientnet_lite0", 64),
    _timm("test_nfnet", 64),
    _timm("resnetv2_50", 64, layers=(1, 1, 1, 1), zero_init_last=False),
    _timm("mobilenetv3_small_050", 64),
    _timm("beit_base_patch16_224", 32, img_size=32, **VIT, init_values=0.1),
    _timm("eva02_tiny_patch14_224", 32, img_size=32, **VIT),
    _timm("swin_tiny_patch4_window7_224", 32, img_size=32, **SWIN),
    _timm("swinv2_tiny_window8_256", 32, img_size=32, **SWIN),
    _timm("vit_tiny_patch16_224", 32, img_size=32, **VIT),
    _timm("test_coatnet", 64, img_size=64),
    _timm("levit_128s", 224),
    _timm("tiny_vit_5m_224", 64),
    _timm("mobilevit_xxs", 64),
    ModelCase("torchvision_vit", _vision_transformer, 32),
    ModelCase("torchvision_swin", _swin, 32),
    ModelCase("torchvision_shufflenet", _shufflenet, 64),
]


def wake(model: nn.Module) -> nn.Module:
    """Fill tensors that start at zero (gains, last norms), behind which nothing would get a gradient."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return model


METHODS = ("lora", "rslora", "dora", "lokr", "loha", "lora_fa", "tucker", "ia3")
"""Those that come along."""

STANDARDIZED = {"timm_std_conv2d", "timm_std_conv2d_same", "timm_scaled_std_conv2d"}
"""Layers that bring their weight's rows to one length, whatever it was: a scale of the rows is then without effect."""

LAYERS_WITH_METHODS = [
    (case, method) for case in LAYERS for method in METHODS if method != "ia3" or case.name not in STANDARDIZED
]


def is_factor(name: str) -> bool:
    """Whether a parameter of a model is an adapter's, by its name."""
    return ".adapters." in f".{name}"


def perturb(model: nn.Module, scale: float = 0.02) -> None:
    """Move every factor away from its start, so that the adapter has an effect."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_factor(name):
                parameter.add_(scale * torch.randn_like(parameter))
