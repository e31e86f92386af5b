"""Folding BatchNorm leaves the numbers of every family of CNNs as they are."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.models.convmixer import ConvMixer
from torch import Tensor, nn
from torchvision.models import detection, segmentation
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

import visionlora as vl
from helpers.comparing import agree, trained
from helpers.folded_models import adapted, compare, norms_of


def _timm(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **kwargs)


def _vgg() -> nn.Module:
    layers = torchvision.models.vgg.make_layers([8, "M", 16, "M", 16, 32, "M"], batch_norm=True)
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))


def _google(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(torchvision.models, name)(num_classes=5, init_weights=False, **kwargs)


def _segmenter(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    made = getattr(segmentation, name)
    return lambda: made(weights=None, weights_backbone=None, num_classes=5, **kwargs)


# name: model, image size, folded, all, and why some stay
FAMILIES: dict[str, tuple[Callable[[], nn.Module], int, int, int, str]] = {
    "ResNet": (_timm("resnet10t", zero_init_last=False), 64, 14, 14, ""),
    "ResNet-D": (_timm("resnet18d", zero_init_last=False), 64, 22, 22, ""),
    "ResNeXt": (_timm("resnext26ts"), 64, 31, 31, ""),
    "SE-ResNeXt": (_timm("seresnext26d_32x4d", zero_init_last=False), 64, 31, 31, ""),
    "SK-ResNet": (_timm("skresnet18", zero_init_last=False), 64, 36, 36, ""),
    "Res2Net": (_timm("res2net50_26w_4s", layers=(1, 1, 1, 1), zero_init_last=False), 64, 25, 25, ""),
    "RegNet-X": (_timm("regnetx_002"), 64, 44, 44, ""),
    "RegNet-Y": (_timm("regnety_002"), 64, 44, 44, ""),
    "EfficientNet": (_timm("test_efficientnet"), 64, 13, 13, ""),
    "EfficientNet-Lite": (_timm("tf_efficientnet_lite0"), 64, 49, 49, ""),
    "MobileNetV2": (_timm("mobilenetv2_035"), 64, 52, 52, ""),
    "MobileNetV3": (_timm("mobilenetv3_small_050"), 64, 34, 34, ""),
    "MobileNetV4": (_timm("mobilenetv4_conv_small_050"), 64, 46, 46, ""),
    "FBNet": (_timm("fbnetc_100"), 64, 65, 65, ""),
    "LCNet": (_timm("lcnet_035"), 64, 27, 27, ""),
    "MixNet": (_timm("mixnet_s"), 64, 15, 49, "34 take the concatenation of several convolutions"),
    "HRNet": (_timm("hrnet_w18_small"), 64, 91, 91, ""),
    "DLA": (_timm("dla46_c"), 64, 48, 48, ""),
    "VoVNet": (_timm("ese_vovnet19b_slim_dw"), 64, 22, 22, ""),
    "GhostNet": (_timm("ghostnet_050"), 64, 80, 80, ""),
    "Inception v3": (_google("inception_v3"), 96, 94, 96, "2 in the auxiliary head, which only training runs"),
    "GoogLeNet": (_google("googlenet"), 64, 57, 59, "2 in the auxiliary heads"),
    "DenseNet": (_timm("densenet121", block_config=(2, 2, 2, 2)), 64, 9, 21, "12 take a concatenation"),
    "RepVGG": (_timm("repvgg_a0"), 64, 44, 61, "17 take a block's input"),
    "CSPNet": (_timm("cs3darknet_s"), 64, 32, 32, ""),
    "ByobNet": (_timm("test_byobnet"), 64, 14, 14, ""),
    "ShuffleNet": (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5), 64, 56, 56, ""),
    "MNASNet": (lambda: torchvision.models.mnasnet0_5(num_classes=5), 64, 52, 52, ""),
    "VGG-BN": (_vgg, 64, 4, 4, ""),
    "SqueezeNet": (lambda: torchvision.models.squeezenet1_1(num_classes=5), 64, 0, 0, ""),
    "ConvMixer": (lambda: ConvMixer(16, 3, 5, num_classes=5), 64, 0, 7, "all take an activation"),
    "LeViT": (_timm("levit_128s"), 224, 4, 52, "all but the stem's take a linear layer"),
    "MobileViT": (_timm("mobilevit_xxs"), 64, 32, 32, ""),
    "ResNetV2": (_timm("resnetv2_50", layers=(1, 1, 1, 1), zero_init_last=False), 64, 8, 13, "5 take a sum or a pool"),
    "CoAtNet": (_timm("test_coatnet", img_size=64), 64, 5, 7, "2 take a sum"),
    "DeepLabV3": (_segmenter("deeplabv3_mobilenet_v3_large"), 64, 53, 53, ""),
    "FCN": (_segmenter("fcn_resnet50", aux_loss=True), 32, 55, 55, ""),
    "LRASPP": (_segmenter("lraspp_mobilenet_v3_large"), 64, 47, 47, ""),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folded_model_computes_what_it_did(family: str) -> None:
    make, size, n_folded, n_all, _ = FAMILIES[family]
    model = adapted(make()).double().eval()
    folded = compare(model, torch.randn(2, 3, size, size, dtype=torch.float64))
    assert (len(folded), len(norms_of(model))) == (n_folded, n_all)
    assert set(folded) <= set(norms_of(model)) and len(set(folded)) == len(folded)


@pytest.mark.parametrize("family", ["ResNet", "RegNet-Y", "EfficientNet-Lite", "MobileNetV3", "DenseNet", "MobileViT"])
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_a_folded_model_agrees_in_float32(family: str, format: torch.memory_format) -> None:
    make, size, n_folded, *_ = FAMILIES[family]
    model = adapted(make()).eval().to(memory_format=format)
    x = torch.randn(2, 3, size, size).contiguous(memory_format=format)
    assert len(compare(model, x, tolerance=1e-3)) == n_folded


@pytest.mark.parametrize("family", ["ResNet", "EfficientNet-Lite", "ShuffleNet", "HRNet"])
def test_convolutions_without_an_adapter_are_folded_too(family: str) -> None:
    make, size, n_folded, *_ = FAMILIES[family]
    model = make()
    first = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    model = adapted(model, targets=[first]).double().eval()
    assert len(compare(model, torch.randn(2, 3, size, size, dtype=torch.float64))) == n_folded


def resnet18_fpn() -> nn.Module:
    return resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5)


DETECTORS = {
    "RetinaNet": lambda: detection.RetinaNet(resnet18_fpn(), 3, min_size=64, max_size=64),
    "Faster R-CNN": lambda: detection.FasterRCNN(resnet18_fpn(), 3, min_size=64, max_size=64, box_detections_per_img=4),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_with_frozen_batchnorm(name: str) -> None:
    model = adapted(DETECTORS[name]()).double().train()
    images = [torch.rand(3, 64, 48, dtype=torch.float64), torch.rand(3, 40, 64, dtype=torch.float64)]
    boxes = torch.tensor([[4.0, 4, 30, 30], [10, 8, 36, 28]], dtype=torch.float64)
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2])} for _ in images]

    def losses() -> dict[str, Tensor]:
        torch.manual_seed(3)
        found = model(images, targets)
        factors = trained(model)
        each = torch.autograd.grad(sum(found.values()), list(factors.values()), materialize_grads=True)
        return {**{key: loss.detach() for key, loss in found.items()}, **dict(zip(factors, each, strict=True))}

    expected = losses()
    assert len(vl.fold_batchnorm(model, images)) == len(norms_of(model)) == 20
    agree(losses(), expected, 1e-8)
    model.eval()
    with torch.no_grad():
        found = model(images)
        vl.unfold_batchnorm(model)
        for one, other in zip(found, model(images), strict=True):
            torch.testing.assert_close(one, other)
