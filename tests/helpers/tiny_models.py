"""Adapters on tiny bases with random weights, as a run would have saved them, for the tests of this folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import visionlora as vl
from visionlora.config_errors import sections_of
from visionlora.tasks.registry import schema_of, task_of


@dataclass(frozen=True)
class Tiny:
    """A model to make: its task, settings, classes and preprocessing, and what else its file says."""

    task: str
    model: dict[str, Any]
    classes: list[str]
    preprocessing: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)


PLAIN = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
CLASSIFIER = {"height": 64, "width": 64, **PLAIN, "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}
DETECTOR = {"size": 96, "tile": None, "tile_overlap": 0}
SEGMENTER = {"size": 96, **PLAIN, "window": None, "window_overlap": 0}
SMALL = {"levels": [3, 4, 5], "fpn_channels": 32, "head_convs": 1, "size": 96}
WORDS = ["ant", "bee", 'a, "quoted" <wasp>']

MODELS = {
    "resnet": Tiny("classification", {"name": "test_resnet", "img_size": 64, **PLAIN}, WORDS, CLASSIFIER),
    "many": Tiny("classification", {"name": "test_resnet", "img_size": 64}, WORDS, CLASSIFIER, {"multilabel": True}),
    "vit": Tiny(
        "classification",
        {"name": "test_vit3", "img_size": [64, 96]},
        WORDS,
        {**CLASSIFIER, "width": 96, "crop_mode": "squash", "interpolation": "bilinear"},
    ),
    "shufflenet": Tiny("classification", {"name": "shufflenet_v2_x0_5"}, WORDS, CLASSIFIER),
    "fcos": Tiny("detection", {"name": "fcos", "backbone": "test_resnet", **SMALL}, WORDS, DETECTOR),
    "mask_rcnn": Tiny("detection", {"name": "mask_rcnn", "backbone": "test_resnet", **SMALL}, WORDS, DETECTOR),
    "retinanet_vit": Tiny("detection", {"name": "retinanet", "backbone": "test_vit", **SMALL}, WORDS, DETECTOR),
    "ssdlite": Tiny("detection", {"name": "ssdlite320_mobilenet_v3_large", "size": 96}, WORDS, DETECTOR),
    "unet": Tiny(
        "segmentation", {"name": "unet", "backbone": "test_resnet", "channels": 16, "size": 96}, WORDS, SEGMENTER
    ),
    "linear_vit": Tiny("segmentation", {"name": "linear", "backbone": "test_vit", "size": 96}, WORDS, SEGMENTER),
    "lraspp": Tiny("segmentation", {"name": "lraspp_mobilenet_v3_large", "size": 96}, WORDS, SEGMENTER),
}


def make_adapter(folder: Path, tiny: Tiny) -> Path:
    """folder/adapter.safetensors over folder/base.safetensors. Nothing in either passes by chance."""
    folder.mkdir(parents=True, exist_ok=True)
    section = sections_of(schema_of(tiny.task))["model"]
    task = task_of(tiny.task)
    torch.manual_seed(0)
    built = task.build(section.model_validate({**tiny.model, "pretrained": False}), tiny.classes)
    settle(built.model, tiny)
    tensors = _loadable(built.model, tiny)
    base = folder / "base.safetensors"
    save_file(tensors, base)
    settings = section.model_validate({**tiny.model, "checkpoint": str(base)})
    torch.manual_seed(0)
    built = task.build(settings, tiny.classes)
    model = built.model
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=built.head, exclude=list(getattr(built, "unused", []))))
    generator = torch.Generator().manual_seed(3)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "lora_B" in name:
                # An update of a tenth of the weight: what is more makes deep, untrained models explode.
                layer, weight = name.removesuffix(".lora_B").split(".adapters.default.")
                lora_a = parameters[name.replace("lora_B", "lora_A")]
                size = 0.1 * rms(parameters[f"{layer}.{weight}"]) / (8 * 2**0.5 * rms(lora_a))
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
            elif name.endswith("cls_logits.bias"):
                parameter.add_(4.0)  # a fresh head finds nothing
            elif parameter.requires_grad and "lora_A" not in name and parameter.dim() > 1:
                scale = 0.3 * parameter[0].numel() ** -0.5
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    about = {"task": tiny.task, "model": settings.model_dump(mode="json"), "seed": 0, **tiny.extra}
    path = folder / "adapter.safetensors"
    vl.save_adapter(model, path, classes=tiny.classes, preprocessing=tiny.preprocessing, extra=about)
    return path


def rms(tensor: torch.Tensor) -> float:
    return float(tensor.square().mean().sqrt())


def settle(model: nn.Module, tiny: Tiny) -> None:
    """BatchNorm gets statistics of some images, and affine values that fold to something."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 96, 96, generator=generator)
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        if tiny.task == "classification":
            images = images[:, :, : tiny.preprocessing["height"], : tiny.preprocessing["width"]]
        model(list(images.sigmoid()) if tiny.task == "detection" else images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            # A channel that hardly varied would blow up the last digits.
            norm.running_var.clamp_(min=float(norm.running_var.mean()) / 4)
            norm.weight.uniform_(0.8, 1.2, generator=generator)
            norm.bias.uniform_(-0.1, 0.1, generator=generator)
    model.train()


def _loadable(model: nn.Module, tiny: Tiny) -> dict[str, torch.Tensor]:
    """What a checkpoint for this model holds."""
    prefix = ""
    if "backbone" in tiny.model:
        prefix = "backbone.body." if tiny.task == "detection" else "backbone."
    state = model.state_dict()
    return {
        key.removeprefix(prefix): value.clone().contiguous() for key, value in state.items() if key.startswith(prefix)
    }


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (120, 80)) -> Path:
    """A smooth picture with some rectangles, of (width, height)."""
    from visionlora.exports.images import generated_images

    pixels = generated_images(seed % 8 + 1, seed)[-1]
    Image.fromarray(np.ascontiguousarray(pixels)).resize(size).save(path)
    return path


Make = Callable[[str], Path]
