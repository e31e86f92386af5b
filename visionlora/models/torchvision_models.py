"""Classifiers from torchvision."""

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from visionlora.errors import InputError
from visionlora.models.weights import explain_mismatch, head_outputs, not_fetched, read_state_dict, start_at_zero

PREFIX = "torchvision/"


def names() -> list[str]:
    """Every classifier that torchvision knows."""
    return list(torchvision.models.list_models(module=torchvision.models))


def is_known(name: str) -> bool:
    """Whether torchvision can create the classifier."""
    return name.removeprefix(PREFIX) in names()


def create(
    name: str,
    num_classes: int,
    pretrained: bool,
    checkpoint: Path | None,
    img_size: tuple[int, int] | None,
    options: dict[str, float],
) -> tuple[nn.Module, list[str], dict[str, Any]]:
    """The model, its head's names, and its data config; see ``create_classifier``."""
    name = name.removeprefix(PREFIX)
    builder = torchvision.models.get_model_builder(name)
    for option, value in options.items():
        if value:
            raise InputError(f"model {name}: torchvision's models take no model.{option}; use timm's, or leave it out")
    try:
        model = builder(weights="DEFAULT" if pretrained and checkpoint is None else None)
    except (OSError, ValueError, RuntimeError) as error:
        raise not_fetched(name, error) from error
    _drop_auxiliary_heads(model)
    head, last = _last_layer(model)
    new_head = pretrained and last.weight.shape[0] != num_classes
    if checkpoint is not None:
        tensors = read_state_dict(checkpoint)
        outputs = head_outputs(tensors, head)
        new_head = outputs != num_classes
        if outputs:
            _replace_head(model, outputs)
        else:
            tensors = {f"{head}.{key}": value for key, value in last.state_dict().items()} | tensors
        _load(model, name, checkpoint, tensors)
    if img_size is not None and isinstance(model, VisionTransformer):
        model = _resize(builder, model, img_size)
    if _last_layer(model)[1].weight.shape[0] != num_classes:
        _replace_head(model, num_classes)
    if new_head:
        start_at_zero(model, [head])
    return model, [head], _data_config(name)


def creation_code(name: str, num_classes: int, img_size: tuple[int, int]) -> str:
    """Python that creates the plain model; see ``classifier.creation_code``."""
    name = name.removeprefix(PREFIX)
    options = f"num_classes={num_classes}"
    if name in ("googlenet", "inception_v3"):
        options += ", aux_logits=False, init_weights=False"
    if name.startswith("vit_"):
        options += f", image_size={img_size[0]}"
    return f"import torchvision\nmodel = torchvision.models.get_model({name!r}, {options})"


def head_name(name: str) -> str:
    """The layer that tells classes apart."""
    with torch.device("meta"):
        model = torchvision.models.get_model(name.removeprefix(PREFIX), weights=None)
    _drop_auxiliary_heads(model)
    return _last_layer(model)[0]


def _load(model: nn.Module, name: str, checkpoint: Path, tensors: dict[str, Any]) -> None:
    tensors = {key: value for key, value in tensors.items() if not key.startswith(("aux", "AuxLogits"))}
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise InputError(explain_mismatch(checkpoint, name, model, tensors, error)) from error


def _drop_auxiliary_heads(model: nn.Module) -> None:
    """GoogLeNet and Inception answer a tuple in training while they have auxiliary heads."""
    if getattr(model, "aux_logits", False):
        model.aux_logits = False  # type: ignore[assignment]
        for name in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, name):
                setattr(model, name, None)


def _last_layer(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The classifier: the last linear layer or 1x1 convolution, by order of definition."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return found[-1]


def _replace_head(model: nn.Module, num_classes: int) -> None:
    name, old = _last_layer(model)
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    else:
        new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size, bias=old.bias is not None)  # type: ignore[arg-type]
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)
    if hasattr(model, "num_classes"):
        model.num_classes = num_classes  # type: ignore[assignment]


def _resize(builder: Any, model: VisionTransformer, img_size: tuple[int, int]) -> nn.Module:
    height, width = img_size
    if height != width or height % model.patch_size:
        raise InputError(
            f"model.img_size {height} x {width}: torchvision's ViT takes squares of a multiple of {model.patch_size}"
        )
    _, last = _last_layer(model)
    resized = builder(weights=None, image_size=height, num_classes=last.weight.shape[0])
    resized.load_state_dict(interpolate_embeddings(height, model.patch_size, model.state_dict()))
    return resized


def _data_config(name: str) -> dict[str, Any]:
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    side = preset.crop_size[0]
    return {
        "input_size": (3, side, side),
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "interpolation": preset.interpolation.value,
        "crop_pct": side / preset.resize_size[0],
        "crop_mode": "center",
    }
