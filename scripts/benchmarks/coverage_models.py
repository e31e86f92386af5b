"""The models that the coverage is measured on: each of timm's model files, and torchvision's models."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from timm.models import _registry
from torch import Tensor, nn

CLASSES = 5
SMALLEST_IMAGE = 64
"""One token or one pixel in the last stage would leave attention and 3x3 kernels without an effect."""

TIMM: dict[str, dict[str, Any]] = {
    "beit_base_patch16_224": {"img_size": 64, "depth": 2},
    "eca_botnext26ts_256": {"img_size": 64},
    "mobileone_s1": {},
    "cait_xxs24_224": {"img_size": 64},
    "coat_tiny": {"img_size": 64},
    "convit_tiny": {"img_size": 64},
    "convmixer_768_32": {},
    "convnext_zepto_rms": {},
    "cpubone_nano": {},
    "crossvit_tiny_240": {},
    "csatv2": {},
    "cs3darknet_focus_s": {},
    "cspnext_tiny": {},
    "davit_tiny": {},
    "deepseek_vit_412m": {"img_size": 56, "depth": 2},
    "deit_tiny_patch16_224": {"img_size": 64},
    "densenet121": {},
    "dla46x_c": {},
    "dpn68": {},
    "edgenext_xx_small": {},
    "efficientformer_l1": {"image": 224},
    "efficientformerv2_s0": {"img_size": 64},
    "mobilenetv2_050": {},
    "efficientvim_m1": {},
    "efficientvit_b0": {},
    "efficientvit_m0": {},
    "vit_tiny_patch16_dinov3_qkvb": {},
    "fasternet_t0": {},
    "fastvit_t8": {},
    "focalnet_tiny_srf": {},
    "gcvit_xxtiny": {"img_size": 64},
    "gemma4_vit_167m": {"image": 96, "depth": 2},
    "ghostnet_100": {},
    "hardcorenas_b": {},
    "hgnetv2_b0": {},
    "hiera_tiny_224": {"img_size": 64},
    "sam2_hiera_tiny": {},
    "hrnet_w18_small": {},
    "iformer_t": {},
    "inception_next_atto": {},
    "inception_resnet_v2": {"image": 96},
    "inception_v3": {"image": 96},
    "inception_v4": {"image": 96},
    "lcnetv2_small": {},
    "levit_128s": {"img_size": 64},
    "lowformer_b0": {},
    "mambaout_femto": {},
    "maxvit_rmlp_pico_rw_256": {"img_size": 64},
    "poolformerv2_s12": {},
    "resmlp_12_224": {"img_size": 64},
    "mobilenetv3_small_050": {},
    "mobilenetv5_300m": {},
    "mobilevit_xxs": {},
    "mvitv2_tiny": {},
    "naflexvit_base_patch16_gap": {"depth": 2},
    "nasnetalarge": {},
    "nest_tiny_jx": {"img_size": 64},
    "nextvit_small": {},
    "nf_regnet_b1": {},
    "pit_ti_224": {"img_size": 64},
    "pnasnet5large": {},
    "pvt_v2_b0": {},
    "qwen3_vit_88m": {"depth": 2},
    "rdnet_tiny": {},
    "regnetx_002": {},
    "repghostnet_050": {},
    "repvit_m1": {},
    "res2next50": {},
    "resnest14d": {},
    "resnet10t": {},
    "resnetv2_18": {},
    "rexnet_100": {},
    "selecsls60": {},
    "legacy_seresnet18": {},
    "sequencer2d_s": {},
    "shvit_s1": {},
    "skresnet18": {},
    "starnet_s1": {},
    "swiftformer_xs": {},
    "swin_tiny_patch4_window7_224": {"img_size": 64},
    "swinv2_tiny_window16_256": {"img_size": 64},
    "swinv2_cr_tiny_ns_224": {"img_size": 64},
    "tiny_vit_5m_224": {},
    "tnt_s_legacy_patch16_224": {"img_size": 64},
    "tresnet_m": {},
    "twins_svt_small": {},
    "vgg11": {},
    "visformer_tiny": {"img_size": 64},
    "vit_tiny_patch16_224": {"img_size": 64},
    "vit_tiny_r_s16_p8_224": {"img_size": 64},
    "vit_srelpos_small_patch16_224": {"img_size": 64},
    "samvit_base_patch16": {"img_size": 64, "depth": 3, "global_attn_indexes": (1,)},
    "vitamin_small_224": {"img_size": 64},
    "volo_d1_224": {"img_size": 64},
    "ese_vovnet19b_dw": {},
    "legacy_xception": {},
    "xception41p": {},
    "xcit_nano_12_p8_224": {},
}
"""For each of timm's model files, its smallest model with pretrained weights (test models left out), and arguments.

``img_size`` goes to models that are built for one size, ``image`` is the image's side for the others where
64 is too small. A depth of 2 or 3 stands where the smallest model has more than 80 million parameters and repeats one
block.
"""

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "alexnet": {},
    "convnext_tiny": {},
    "densenet121": {},
    "efficientnet_b0": {},
    "efficientnet_v2_s": {},
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False, "image": 96},
    "maxvit_t": {"image": 224},
    "mnasnet0_5": {},
    "mobilenet_v2": {},
    "mobilenet_v3_small": {},
    "regnet_x_400mf": {},
    "regnet_y_400mf": {},
    "resnet18": {},
    "resnext50_32x4d": {},
    "shufflenet_v2_x0_5": {},
    "squeezenet1_1": {},
    "swin_t": {},
    "swin_v2_t": {},
    "vgg11_bn": {},
    "vit_b_32": {"image_size": 64},
}
"""One or two models from each of torchvision's model files."""

SEGMENTERS = ("deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large")

DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
)


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        group: ``"timm"``, ``"torchvision classifier"`` ...
        name: the library's name.
        make: builds it with random weights.
        size: side of the square images that it is run on.
        classifier: from a model to the names of the layers that are left out.
        detects: whether it takes a list of images, and in training a list of targets.
    """

    group: str
    name: str
    make: Callable[[], nn.Module]
    size: int
    classifier: Callable[[nn.Module], list[str]]
    detects: bool = False

    def example(self) -> Any:
        """Two images, as the model takes them."""
        if self.detects:
            return [torch.rand(3, self.size, self.size) for _ in range(2)]
        return torch.randn(2, 3, self.size, self.size)

    def targets(self) -> list[dict[str, Tensor]]:
        """For a detector, a box of each scale of SSD's levels, with its mask; a level without a box gets no loss."""
        sides = torch.tensor([0.2, 0.35, 0.5, 0.65, 0.8, 0.95]) * self.size
        boxes = torch.stack([0.02 * self.size + torch.zeros(6), torch.zeros(6), 0.02 * self.size + sides, sides], dim=1)
        masks = (torch.arange(self.size) < sides[:, None]).to(torch.uint8)[:, None].expand(6, self.size, self.size)
        return [{"boxes": boxes, "labels": torch.tensor([1, 2] * 3), "masks": masks} for _ in range(2)]


def cases() -> list[Case]:
    """Every model of this page."""
    return [
        *(_timm(name, **arguments) for name, arguments in TIMM.items()),
        *(_classifier(name, **arguments) for name, arguments in CLASSIFIERS.items()),
        *(_segmenter(name) for name in SEGMENTERS),
        *(_detector(name) for name in DETECTORS),
    ]


def missing_files() -> list[str]:
    """timm's model files of which no model is listed: a newer timm has more."""
    listed = {_registry._model_to_module[name] for name in TIMM}
    return sorted(set(_registry._model_to_module.values()) - listed)


def _timm(name: str, image: int = SMALLEST_IMAGE, **arguments: Any) -> Case:
    make = partial(timm.create_model, name, num_classes=CLASSES, **arguments)
    return Case("timm", name, make, arguments.get("img_size", image), _timm_classifier)


def _classifier(name: str, image: int = SMALLEST_IMAGE, **arguments: Any) -> Case:
    make = partial(torchvision.models.get_model, name, weights=None, num_classes=CLASSES, **arguments)
    return Case("torchvision classifier", name, make, arguments.get("image_size", image), _last_layer)


def _segmenter(name: str) -> Case:
    make = partial(torchvision.models.get_model, name, weights=None, weights_backbone=None, num_classes=CLASSES)
    return Case("torchvision segmenter", name, make, SMALLEST_IMAGE, _nothing)


def _detector(name: str) -> Case:
    # Random weights are sure of nothing, and without a detection there is nothing to compare.
    threshold = {"box_score_thresh" if "rcnn" in name else "score_thresh": 0.0}
    size = {} if name.startswith("ssd") else {"min_size": 96, "max_size": 128}
    arguments = {"weights": None, "weights_backbone": None, "num_classes": 3, **threshold, **size}
    make = partial(torchvision.models.get_model, name, **arguments)
    return Case("torchvision detector", name, make, 96, _nothing, detects=True)


def _timm_classifier(model: nn.Module) -> list[str]:
    names = model.default_cfg["classifier"]  # type: ignore[index, union-attr]
    heads = (names,) if isinstance(names, str) else names
    return [f"{head}.{path}".rstrip(".") for head in heads for path, _ in model.get_submodule(head).named_modules()]


def _last_layer(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1:]


def _nothing(_model: nn.Module) -> list[str]:
    return []
