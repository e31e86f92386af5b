"""Attach adapters to one layer, and detach them.

The layer keeps its place, its forward, its parameter names and its frozen parameters. Only its
attribute ``weight`` (``in_proj_weight`` ... of ``nn.MultiheadAttention``) becomes a property that
answers the adapted weight.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters.methods import LoRA
from visionlora.adapters.swap import is_swapped, swap, unswap


class LayerAdapters(nn.ModuleDict):
    """A layer's adapters: name -> parameter -> method, and which of the names are active."""

    def __init__(self) -> None:
        super().__init__()
        self.active: tuple[str, ...] = ()

    def activate(self, names: Sequence[str]) -> None:
        """Apply those of the named adapters that this layer holds, in this order."""
        self.active = tuple(name for name in names if name in self)


def add_adapter(layer: nn.Module, name: str, methods: dict[str, LoRA]) -> None:
    """Give ``layer`` the adapter ``name``, inactive: a method for each of its parameters' names."""
    if not is_adapted(layer):
        layer.add_module("adapters", LayerAdapters())
        swap(layer, _members, tuple(methods))
    elif missing := [parameter for parameter in methods if parameter not in adapted_parameters(layer)]:
        parameters = (*adapted_parameters(layer), *missing)
        unswap(layer)
        swap(layer, _members, parameters)
    adapters_of(layer)[name] = nn.ModuleDict(methods)


def remove_adapter(layer: nn.Module, name: str) -> None:
    """Take the adapter ``name`` off ``layer``; with the last one gone, the layer has its plain class."""
    adapters = adapters_of(layer)
    if name in adapters:
        del adapters[name]
        adapters.activate(adapters.active)
    if not len(adapters):
        unswap(layer)
        del layer._modules["adapters"]


def is_adapted(layer: nn.Module) -> bool:
    """Whether the layer holds adapters."""
    return is_swapped(layer, _members)


def adapters_of(layer: nn.Module) -> LayerAdapters:
    """The adapters of an adapted layer."""
    adapters = layer._modules["adapters"]
    assert isinstance(adapters, LayerAdapters)
    return adapters


def adapted_parameters(layer: nn.Module) -> tuple[str, ...]:
    """Names of the parameters of an adapted layer that are read through its adapters."""
    parameters: tuple[str, ...] = vars(type(layer))["__swapped__"][2]
    return parameters


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer of the model that holds adapters, with its name."""
    return ((path, layer) for path, layer in model.named_modules() if is_adapted(layer))


def adapted_weight(layer: nn.Module, parameter: str) -> Tensor:
    """The frozen parameter with the active adapters applied in turn, (same shape and dtype)."""
    frozen = layer._parameters[parameter]
    assert frozen is not None
    weight: Tensor = frozen
    adapters = adapters_of(layer)
    for name in adapters.active:
        methods = adapters[name]
        if parameter in methods:  # type: ignore[operator]
            weight = methods[parameter](weight)  # type: ignore[index]
    return weight


def write_merged(layer: nn.Module) -> None:
    """Write the adapted weights into the frozen parameters and take all adapters off."""
    with torch.no_grad():
        merged = {parameter: adapted_weight(layer, parameter) for parameter in adapted_parameters(layer)}
        for parameter, weight in merged.items():
            frozen = layer._parameters[parameter]
            assert frozen is not None
            frozen.copy_(weight)
    for name in list(adapters_of(layer)):
        remove_adapter(layer, name)


def _members(parameters: tuple[str, ...]) -> dict[str, Any]:
    return {parameter: _weight_property(parameter) for parameter in parameters}


def _weight_property(parameter: str) -> property:
    def get(self: nn.Module) -> Tensor:
        try:
            return adapted_weight(self, parameter)
        except AttributeError as error:
            # nn.Module.__getattr__ would take an AttributeError as "not here" and answer the frozen weight.
            raise RuntimeError(f"{parameter} of an adapted {type(self).__name__}: {error}") from error

    return property(get)
