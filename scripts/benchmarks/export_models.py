"""The models that exports are measured on, with random weights and a random adapter."""

import copy
import fnmatch
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import visionlora as vl
from benchmarks.coverage_models import SMALLEST_IMAGE, TIMM
from visionlora.config_errors import sections_of
from visionlora.data.classification.transforms import Preprocessing
from visionlora.exports.source import Source
from visionlora.tasks.detection.inference import DetectorInput
from visionlora.tasks.models import Trained
from visionlora.tasks.registry import schema_of, task_of
from visionlora.tasks.segmentation.inference import SegmenterInput

CLASSES = ["bicycle", "lorry", "roof sign"]
SIDE = 128
"""Pixels of the longest side that detectors and segmenters see."""
RANK, ALPHA, UPDATE = 4, 8.0, 0.1
"""The update's size relative to the weight: what is more makes deep, untrained models explode."""
DECIDED = 100
"""A fresh RPN gives all places the same score up to its fourth digit, so that the last digits choose among them."""
MODEST = 0.1
"""An untrained body's features are large, and what is read from them by a fresh head throws boxes about."""

CNNS = (
    "resnet10t",
    "regnetx_002",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_050",
    "convnext_atto",
    "hrnet_w18_small",
    "ghostnet_100",
    "repvgg_a0",
    "densenet121",
    "ese_vovnet19b_dw",
)
TRANSFORMERS = (
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "levit_128s",
    "pit_ti_224",
    "cait_xxs24_224",
    "xcit_nano_12_p8_224",
    "maxvit_rmlp_pico_rw_256",
    "hiera_tiny_224",
    "mobilevit_xxs",
)
DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
)
SEGMENTERS = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "fcn_resnet50")
OWN = {
    "detection": (("retinanet", "resnet10t"), ("fcos", "vit_tiny_patch16_224")),
    "segmentation": (("unet", "resnet10t"), ("linear", "vit_tiny_patch16_224")),
}


@dataclass(frozen=True)
class Case:
    """One model: its task, the settings that build it, and the formats that it can be exported to."""

    group: str
    task: str
    model: dict[str, Any]
    formats: tuple[str, ...]

    @property
    def name(self) -> str:
        """For the table."""
        backbone = self.model.get("backbone")
        return f"{self.model['name']} over {backbone}" if backbone else str(self.model["name"])


def cases(pattern: str | None = None) -> list[Case]:
    """Every model of this page, or those whose name has the pattern in it or matches it as a glob."""
    found = [
        Case(group, "classification", {"name": name, "img_size": _size(name)}, ("timm", "onnx"))
        for group, names in {"timm CNN": CNNS, "timm transformer": TRANSFORMERS}.items()
        for name in names
    ]
    for task, names in {"detection": DETECTORS, "segmentation": SEGMENTERS}.items():
        found += [
            Case(f"torchvision {task}", task, {"name": name, "size": SIDE}, _formats(task, name)) for name in names
        ]
    for task, pairs in OWN.items():
        found += [
            Case(f"own {task}", task, {"name": name, "backbone": backbone, "size": SIDE}, _formats(task, name))
            for name, backbone in pairs
        ]
    return [case for case in found if not pattern or pattern in case.name or fnmatch.fnmatchcase(case.name, pattern)]


def make(case: Case) -> Source:
    """The case's model, adapted at random, as if a run had trained it."""
    section = sections_of(schema_of(case.task))["model"].model_validate({**case.model, "pretrained": False})
    torch.manual_seed(0)
    built = task_of(case.task).build(section, CLASSES)
    base = built.model
    _settle(base, case.task)
    base.eval()
    adapted = copy.deepcopy(base)
    unused = list(getattr(built, "unused", []))
    vl.attach(adapted, vl.LoRAConfig(rank=RANK, alpha=ALPHA, unfreeze=built.head, exclude=unused))
    _fill(adapted)
    merged = vl.merged(adapted)
    for model in (adapted, merged):
        model.eval()
    trained = Trained(
        task=case.task,
        built=replace(built, model=merged),
        classes=CLASSES,
        preprocessing=_preprocessing(case.task, built, section),
        path=Path(case.name),
        about={"task": case.task, "model": section.model_dump(mode="json"), "seed": 0},
    )
    return Source(trained, adapted, base)


def _size(name: str) -> int:
    values = TIMM.get(name, {})
    return int(values.get("img_size", values.get("image", SMALLEST_IMAGE)))


def _formats(task: str, name: str) -> tuple[str, ...]:
    """Of all but timm's classifiers; a detector of one stage has raw heads."""
    heads = ("onnx-heads",) if task == "detection" and "rcnn" not in name else ()
    return ("torchvision", "onnx", *heads)


def _preprocessing(task: str, built: Any, section: Any) -> Any:
    if task == "classification":
        return Preprocessing.from_timm(built.data_config)
    if task == "detection":
        return DetectorInput(section.size)
    return SegmenterInput(section.size, built.data_config["mean"], built.data_config["std"])


def _settle(model: nn.Module, task: str) -> None:
    """BatchNorm gets the statistics of some noise: an untrained, deep model's output vanishes without."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    side = SIDE if task != "classification" else _side(model)
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(list(images.sigmoid()) if task == "detection" else images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if norm.running_var is not None:
            # A channel that hardly varied would blow up the last digits.
            norm.running_var.clamp_(min=float(norm.running_var.mean()) / 4)
    for name, parameter in model.named_parameters():
        if name.endswith("cls_logits.bias"):
            nn.init.zeros_(parameter)  # a fresh head is sure that there is nothing
        elif name == "rpn.head.cls_logits.weight":
            parameter.data.mul_(DECIDED)
        elif name.startswith("roi_heads.box_predictor."):
            parameter.data.mul_(MODEST)


def _side(model: nn.Module) -> int:
    embedding = getattr(model, "patch_embed", None)
    size = getattr(embedding, "img_size", None)
    return int(size[0]) if size else SMALLEST_IMAGE


def _fill(model: nn.Module) -> None:
    """Random factors whose update is ``UPDATE`` of the weight."""
    parameters = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name.endswith(".lora_B"):
                layer, weight = name.removesuffix(".lora_B").split(".adapters.default.")
                wanted = UPDATE * _rms(parameters[f"{layer}.{weight}"])
                unit = ALPHA / RANK * RANK**0.5 * _rms(parameters[f"{name.removesuffix('B')}A"])
                parameter.copy_(wanted / unit * torch.randn(parameter.shape, generator=generator))


def _rms(tensor: torch.Tensor) -> float:
    return float(tensor.square().mean().sqrt())
