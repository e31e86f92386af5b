"""BatchNorm statistics measured anew on images without labels."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters import norm, state
from visionlora.adapters.adaptable import base_modules
from visionlora.adapters.attached import Attached, active_names, attached_to, description_of
from visionlora.adapters.folding import refold, unfold_batchnorm
from visionlora.adapters.model import activate, owned_names
from visionlora.errors import InputError


@dataclass(frozen=True)
class Recalibration:
    """What was measured: on how many images, in how many layers."""

    layers: int
    images: int

    def __str__(self) -> str:
        return f"{self.layers} BatchNorm layers measured on {self.images} images"


def recalibrate(model: nn.Module, loader: Iterable[Any], name: str = "default") -> Recalibration:
    """Measure the running statistics of every BatchNorm on these images, with the adapter active; no labels are used.

    The statistics become the mean over all batches of each batch's own (Wu and Johnson 2021, arXiv:2105.07576, section
    3.1), so batches should be no smaller than in training. They belong to the adapter, travel in its file, and leave
    the base's as they are; from now on the adapter has ``batchnorm="recalibrate"``, unless it was ``"train"``.

    Args:
        model: with the adapter as its only active one.
        loader: of batches: what the model takes, or a list or tuple that begins with it.
        name: of the adapter.

    Returns:
        how much was measured.

    Raises:
        InputError: there is no such adapter or it isn't alone active, the model has no BatchNorm that measures, the
            loader is empty, or the statistics are not finite; the model is then unchanged.
    """
    config, unfrozen = description_of(model, name)
    if active_names(model) != [name]:
        raise InputError(f"active are {active_names(model)}; activate '{name}' alone to measure with it")
    modules = dict(base_modules(model))
    layers = {path: module for path, module in modules.items() if _measures(module)}
    if not layers:
        raise InputError(f"{type(model).__name__} has no BatchNorm with running statistics that can be measured")
    folded = unfold_batchnorm(model)
    try:
        images, found = _measured(model, loader, layers)
    except BaseException:
        refold(folded)
        raise
    attached: Attached = attached_to(model)
    if config.batchnorm == "frozen":
        attached.configs[name] = config = replace(config, batchnorm="recalibrate")
    for path, names in owned_names(config, unfrozen, modules).items():
        state.own_more(modules[path], name, names)
    activate(model, name)
    with torch.no_grad():
        for path, statistics in found.items():
            for key, value in statistics.items():
                layers[path]._buffers[key].copy_(value)  # type: ignore[union-attr]
    return Recalibration(len(layers), images)


def _measures(module: nn.Module) -> bool:
    """Whether a training forward measures; torchvision's FrozenBatchNorm2d never does."""
    return norm.has_running_stats(module) and hasattr(module, "momentum")


def _measured(
    model: nn.Module, loader: Iterable[Any], layers: dict[str, nn.Module]
) -> tuple[int, dict[str, dict[str, Tensor]]]:
    """How many images there were, and the buffers that they give; the model is as it was."""
    images, device = 0, next(iter(next(iter(layers.values())).buffers())).device
    with _measuring(model, layers), torch.no_grad():
        for batch in loader:
            taken = batch[0] if isinstance(batch, list | tuple) else batch
            taken = taken.to(device) if isinstance(taken, Tensor) else taken
            try:
                model(taken)
            except ValueError as error:
                raise InputError(f"a batch can't be measured ({error}); give batches of several images") from error
            images += len(taken)
        found = {path: {key: value.clone() for key, value in _buffers(module)} for path, module in layers.items()}
    if not images:
        raise InputError("the loader is empty; nothing was measured")
    for path, statistics in found.items():
        if not all(torch.isfinite(value).all() for value in statistics.values()):
            raise InputError(f"the statistics of '{path}' are not finite on these images; nothing was changed")
    return images, found


@contextmanager
def _measuring(model: nn.Module, layers: dict[str, Any]) -> Iterator[None]:
    """Within the block these layers, and nothing else, are in training mode, and average over all batches."""
    modes = [(module, module.training) for module in model.modules()]
    before = [
        (module, module.momentum, {key: value.clone() for key, value in _buffers(module)}) for module in layers.values()
    ]
    for module, _ in modes:
        module.training = False
    for module in layers.values():
        module.reset_running_stats()
        module.momentum, module.training = None, True
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, momentum, buffers in before:
            module.momentum = momentum
            for key, value in buffers.items():
                module._buffers[key].copy_(value)


def _buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(key, value) for key, value in module._buffers.items() if value is not None]
