"""An adapter into its file: safetensors, with everything else in the header."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters import state
from visionlora.adapters.adaptable import base_modules, tied_parameters
from visionlora.adapters.attached import active_names, description_of
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.fingerprint import architecture, fingerprint, frozen_tensors, rounded_fingerprints
from visionlora.adapters.header import FORMAT, VERSION, refuse_unreadable
from visionlora.adapters.layer import adapted_layers, adapted_parameters, is_adapted, methods_of
from visionlora.adapters.paths import join
from visionlora.adapters.patterns import is_under
from visionlora.adapters.unfreezing import matched_unfrozen
from visionlora.errors import InputError
from visionlora.files import write_atomic
from visionlora.tensor_files import write_tensors
from visionlora.version import __version__


def save_adapter(
    model: nn.Module,
    path: str | Path,
    name: str = "default",
    classes: Sequence[str] | None = None,
    preprocessing: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write one adapter: its factors, unfrozen modules, and BatchNorm state if it changed.

    Args:
        model: the module that ``attach`` was called on.
        path: of the file, written as a whole or not at all; an older file is replaced.
        name: of the adapter.
        classes: class names in the order of the outputs.
        preprocessing: input size, mean, std ... as plain data.
        extra: further plain data for the header.

    Whatever trains besides, as a head does that was put in after ``attach``, is written as if it had been unfrozen.

    Raises:
        InputError: the model has no such adapter, or the frozen weight of an adapted layer trains;
            or a class name is no text.
    """
    config, _ = description_of(model, name)
    tensors, layers = factors_of(model, name)
    values, unfrozen = trained_values(model, name)
    tensors |= values
    base = {key: tensor for key, tensor in _base(model, name, config).items() if key not in values}
    header = {
        "format": FORMAT,
        "format_version": str(VERSION),
        "visionlora": __version__,
        "config": json.dumps(config.to_dict()),
        "layers": json.dumps(layers),
        "unfrozen": json.dumps(unfrozen),
        "architecture": json.dumps(architecture(model)),
        "base": json.dumps({key: fingerprint(tensor) for key, tensor in base.items()}),
        "rounded": json.dumps(rounded_fingerprints(base)),
        "classes": json.dumps(None if classes is None else list(classes)),
        "preprocessing": json.dumps(preprocessing),
        "extra": json.dumps(extra or {}),
    }
    refuse_unreadable(header, Path(path))
    write_atomic(Path(path), lambda temporary: write_tensors(tensors, temporary, header))


def trained_values(model: nn.Module, name: str) -> tuple[dict[str, Tensor], list[str]]:
    """What an adapter has besides its methods' tensors, by the model's names, and names of all that trains fully."""
    _, unfrozen = description_of(model, name)
    besides = _trained_besides(model, name)
    return _owned(model, name, unfrozen) | besides, [*unfrozen, *_roots(model, besides, unfrozen)]


def factors_of(model: nn.Module, name: str) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """The tensors of an adapter's methods, and rank, alpha and parts of each adapted parameter, by its name."""
    tensors: dict[str, Tensor] = {}
    layers: dict[str, dict[str, Any]] = {}
    for path, layer in adapted_layers(model):
        for parameter, method in methods_of(layer, name).items():
            key = join(path, parameter)
            tensors |= {f"{key}.{factor}": tensor for factor, tensor in method.state_dict().items()}
            layers[key] = {"rank": method.rank, "alpha": method.alpha, "parts": method.parts}
    return tensors, layers


def _owned(model: nn.Module, name: str, unfrozen: list[str]) -> dict[str, Tensor]:
    """Tensors of unfrozen modules, and those of BatchNorm that differ from the base's."""
    tensors = {}
    for path, module in base_modules(model):
        base = state.base_tensors(module)
        for tensor, value in state.values_of(module, name).items():
            key, persistent = join(path, tensor), tensor not in module._non_persistent_buffers_set
            if persistent and (is_under(key, unfrozen) or not torch.equal(value, base[tensor].to(value))):
                tensors[key] = value
    return tensors


def _trained_besides(model: nn.Module, name: str) -> dict[str, Tensor]:
    """What trains and is no adapter's: modules that were put in after ``attach``, with their buffers."""
    if name not in active_names(model):
        return {}
    found: dict[str, Tensor] = {}
    seen = {
        id(tensor)
        for _, module, record in state.owned_modules(model)
        for each, tensor in state.direct_tensors(module).items()
        if any(each in names for names in record.names.values())
    }
    for path, module in base_modules(model):
        trains: dict[str, Tensor | None] = {
            each: parameter
            for each, parameter in module._parameters.items()
            if parameter is not None and parameter.requires_grad and id(parameter) not in seen
        }
        seen |= {id(tensor) for tensor in trains.values()}
        if is_adapted(module) and (weights := [each for each in trains if each in adapted_parameters(module)]):
            raise InputError(
                f"{join(path, weights[0])} trains itself under its adapter; freeze it (requires_grad = False), "
                f"or leave it out of the targets and unfreeze it"
            )
        if trains and len(trains) == len(list(module.parameters(recurse=False))):
            trains |= {key: b for key, b in module._buffers.items() if key not in module._non_persistent_buffers_set}
        found |= {join(path, each): tensor for each, tensor in trains.items() if tensor is not None}
    return found


def _roots(model: nn.Module, keys: Iterable[str], unfrozen: list[str]) -> list[str]:
    """Names of the modules all of whose tensors are among these, and of what remains; none that is unfrozen already."""
    modules, left = dict(base_modules(model)), [key for key in keys if not is_under(key, unfrozen)]
    roots: list[str] = []
    for path, module in modules.items():
        own = [join(path, name) for name in module.state_dict()]
        if path and own and not is_under(path, roots) and set(own) <= set(left):
            roots.append(path)
    return [*roots, *(key for key in left if not is_under(key, roots))]


def _base(model: nn.Module, name: str, config: LoRAConfig) -> dict[str, Tensor]:
    """The base's tensors, without the heads that the adapter was made with even if it came without them."""
    modules = dict(base_modules(model))
    heads = [path for found in matched_unfrozen(config.unfreeze or [], modules).values() for path in found]
    for places in tied_parameters(modules).values():
        if any(is_under(place, heads) for place in places):
            heads += places
    return {key: tensor for key, tensor in frozen_tensors(model, name).items() if not is_under(key, heads)}
