"""An image classifier by its timm or torchvision name."""

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from visionlora.errors import InputError, did_you_mean
from visionlora.models import timm_models, torchvision_models
from visionlora.models.weights import check_checkpoint, first_line, head_outputs, read_state_dict


@dataclass(frozen=True)
class Classifier:
    """A plain classifier and what one must know to feed it.

    Attributes:
        model: (N, 3, H, W) -> (N, num_classes).
        head: names of the modules that map features to classes.
        data_config: as ``timm.data.resolve_data_config`` gives it: input_size, mean, std, interpolation,
            crop_pct, crop_mode.
        unused: names of layers that no output depends on; none is known.
    """

    model: nn.Module
    head: list[str]
    data_config: dict[str, Any]
    unused: list[str] = field(default_factory=list)


def create_classifier(
    name: str,
    num_classes: int,
    pretrained: bool = True,
    checkpoint: Path | None = None,
    img_size: tuple[int, int] | None = None,
    data_config: dict[str, Any] | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Classifier:
    """Create a classifier with a head for ``num_classes``.

    Args:
        name: a timm name (with a tag, if you like), a torchvision name, or ``torchvision/NAME`` where both
            libraries know the name; timm comes first.
        num_classes: outputs. The head of the pretrained weights is kept where it has as many; else a new
            one starts at zero.
        pretrained: take weights from the library's hub, unless there is a ``checkpoint``.
        checkpoint: a local file of weights for this architecture (safetensors or pth).
        img_size: height and width, for other sizes than the model's own.
        data_config: entries that replace the model's own.
        drop_rate, drop_path_rate: dropout before the head, and stochastic depth (timm).

    Raises:
        InputError: unknown name, weights that don't fit or can't be fetched, an input size that the model
            doesn't take.
    """
    check_checkpoint(checkpoint)
    library = _library(name)
    if library is torchvision_models and not torchvision_models.is_known(name):
        prefix = torchvision_models.PREFIX if name.startswith(torchvision_models.PREFIX) else ""
        known = [f"{prefix}{known}" for known in torchvision_models.names()] + ([] if prefix else timm_models.names())
        raise InputError(f"unknown model '{name}'{did_you_mean(name, known)}; timm.list_models() shows timm's names")
    options = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    model, head, config = library.create(name, num_classes, pretrained, checkpoint, img_size, options)
    config = {**config, **{key: value for key, value in (data_config or {}).items() if value is not None}}
    if img_size is not None:
        config["input_size"] = (3, *img_size)
    _check_size(model, name, config["input_size"])
    return Classifier(model, head, config)


def own_outputs(name: str) -> int:
    """Classes of the head that the model's published weights have, as its library says; ImageNet's where it doesn't."""
    config = timm_models.published(name)
    return config.num_classes if config is not None and config.num_classes else 1000


def stored_outputs(name: str, pretrained: bool, checkpoint: Path | None) -> int:
    """Classes of the head that a model's weights have, in a local file or as its library says; 0 if it has none."""
    if checkpoint is None:
        return own_outputs(name) if pretrained else 0
    check_checkpoint(checkpoint)
    return head_outputs(read_state_dict(checkpoint), _library(name).head_name(name))


def creation_code(name: str, num_classes: int, img_size: tuple[int, int]) -> str:
    """Python that creates the same plain model without this package, as ``model``; img_size in pixels."""
    return _library(name).creation_code(name, num_classes, img_size)


def _library(name: str) -> ModuleType:
    return timm_models if timm_models.is_known(name) else torchvision_models


def _check_size(model: nn.Module, name: str, input_size: tuple[int, int, int]) -> None:
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *input_size))
    except (RuntimeError, AssertionError, ValueError, LookupError, ArithmeticError) as error:
        _, height, width = input_size
        raise InputError(
            f"model {name} does not take images of {height} x {width} (model.img_size): {first_line(error)}"
        ) from error
    finally:
        model.train(training)
