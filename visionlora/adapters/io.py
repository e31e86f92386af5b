"""One file per adapter: safetensors, with everything else in its header."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters import state
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.fingerprint import architecture, fingerprint, fingerprints, frozen_tensors
from visionlora.adapters.header import FORMAT, VERSION, Header, read_file, under_prefix
from visionlora.adapters.layer import adapted_layers, methods_of
from visionlora.adapters.methods.base import Method
from visionlora.adapters.methods.registry import method_of
from visionlora.adapters.model import check_name, description_of, install, owns
from visionlora.adapters.qkv import part_rows
from visionlora.adapters.report import Report
from visionlora.adapters.targets import (
    LeftOut,
    Target,
    base_modules,
    is_under,
    obstacle,
    pattern_matches,
    tied_parameters,
)
from visionlora.errors import InputError, some
from visionlora.files import write_atomic, write_tensors
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

    Raises:
        InputError: the model has no such adapter.
    """
    config, unfrozen = description_of(model, name)
    tensors, layers = _factors(model, name)
    tensors |= _owned(model, name, unfrozen)
    header = {
        "format": FORMAT,
        "format_version": str(VERSION),
        "visionlora": __version__,
        "config": json.dumps(config.to_dict()),
        "layers": json.dumps(layers),
        "unfrozen": json.dumps(unfrozen),
        "architecture": json.dumps(architecture(model)),
        "base": json.dumps(_base(model, name, config)),
        "classes": json.dumps(None if classes is None else list(classes)),
        "preprocessing": json.dumps(preprocessing),
        "extra": json.dumps(extra or {}),
    }
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    write_atomic(Path(path), lambda temporary: write_tensors(plain, temporary, header))


def load_adapter(
    model: nn.Module, path: str | Path, name: str = "default", heads: bool = True, prefix: str = ""
) -> Report:
    """Attach an adapter from its file, and make it the active one.

    Args:
        model: a model with the very base that the adapter was made on; it may have further modules.
        path: a file from ``save_adapter``.
        name: for the adapter on this model.
        heads: also load the unfrozen modules. With False only the factors (and BatchNorm state) come, for
            a backbone that carries another task's head, or none.
        prefix: take only what the file has for the module of this name, as the adapter of ``model``: a classifier
            takes ``backbone.body`` of a file that was made on a detector or segmenter over the same backbone.

    Returns:
        the report, as from ``attach``.

    Raises:
        InputError: the file is damaged or was made on another base, or the name is taken; the model is
            then unchanged.
    """
    path = Path(path)
    check_name(model, name)
    header, tensors = read_file(path)
    if prefix:
        header, tensors = under_prefix(header, tensors, prefix, path)
    modules = dict(base_modules(model))
    _check_base(model, header, path, heads)
    targets = _file_targets(model, modules, header, path)
    methods = {target: _method(modules, target, header, tensors, path) for target in targets}
    unfrozen = header.unfrozen if heads else []
    factors = _factor_keys(methods, tensors, path)
    values = {
        key: tensor
        for key, tensor in tensors.items()
        if key not in factors and (heads or not is_under(key, header.unfrozen))
    }
    _check_values(modules, header.config, unfrozen, values, path)
    report = install(model, name, header.config, methods, unfrozen, _left_out(modules, methods, unfrozen))
    with torch.no_grad():
        for key, tensor in values.items():
            module_path, _, tensor_name = key.rpartition(".")
            state.direct_tensors(modules[module_path])[tensor_name].copy_(tensor)
    return report


def _factors(model: nn.Module, name: str) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    tensors: dict[str, Tensor] = {}
    layers: dict[str, dict[str, Any]] = {}
    for path, layer in adapted_layers(model):
        for parameter, method in methods_of(layer, name).items():
            key = _join(path, parameter)
            tensors |= {f"{key}.{factor}": tensor for factor, tensor in method.state_dict().items()}
            layers[key] = {"rank": method.rank, "alpha": method.alpha, "parts": method.parts}
    return tensors, layers


def _owned(model: nn.Module, name: str, unfrozen: list[str]) -> dict[str, Tensor]:
    """Tensors of unfrozen modules, and those of BatchNorm that differ from the base's."""
    tensors = {}
    for path, module in base_modules(model):
        base = state.base_tensors(module)
        for key, value in state.values_of(module, name).items():
            persistent = key not in module._non_persistent_buffers_set
            if persistent and (is_under(path, unfrozen) or not torch.equal(value, base[key].to(value))):
                tensors[_join(path, key)] = value
    return tensors


def _base(model: nn.Module, name: str, config: LoRAConfig) -> dict[str, str]:
    """Fingerprints of the base, without the heads that the adapter was made with even if it came without them."""
    modules = dict(base_modules(model))
    heads = [path for path in modules if path and any(pattern_matches(p, path, modules) for p in config.unfreeze)]
    return {key: digest for key, digest in fingerprints(model, name).items() if not is_under(key, heads)}


def _check_base(model: nn.Module, header: Header, path: Path, heads: bool) -> None:
    """The frozen tensors that the adapter was made on must be in the model, bit for bit.

    Where heads are left out, the model may lack layers that aren't adapted: the frozen head of another task.
    """
    tensors = frozen_tensors(model)
    made_on = header.architecture.get("timm") or header.architecture.get("class")
    adapted = {key.rpartition(".")[0] for key in header.layers}
    absent = [key for key in header.base if key not in tensors and (heads or key.rpartition(".")[0] in adapted)]
    if absent:
        raise InputError(
            f"{path}: made on another architecture ({made_on}): this {type(model).__name__} has no {some(absent, 2)}; "
            f"create the model that it was made on"
        )
    there = {key: expected for key, expected in header.base.items() if key in tensors}
    differing = [key for key, expected in there.items() if fingerprint(tensors[key]) != expected]
    if differing:
        raise InputError(
            f"{path}: made on another base: {len(differing)} of {len(header.base)} frozen tensors differ, "
            f"'{differing[0]}' first; load the weights of {made_on} that it was made on"
        )


def _file_targets(model: nn.Module, modules: dict[str, nn.Module], header: Header, path: Path) -> list[Target]:
    targets = []
    for key, layer in header.layers.items():
        layer_path, _, parameter = key.rpartition(".")
        if layer_path not in modules:
            raise InputError(f"{path}: adapts '{key}', and this {type(model).__name__} has no such layer")
        rows = part_rows(model, layer_path, layer["parts"]) if layer["parts"] else None
        targets.append(Target(layer_path, parameter, layer["rank"], layer["alpha"], layer["parts"], rows))
    return targets


def _method(
    modules: dict[str, nn.Module], target: Target, header: Header, tensors: dict[str, Tensor], path: Path
) -> Method:
    layer, key = modules[target.path], _join(target.path, target.parameter)
    weight = layer._parameters.get(target.parameter)
    if weight is None or (reason := obstacle(layer, tied_parameters(modules))):
        raise InputError(
            f"{path}: {key} can't be adapted in this model: {reason if weight is not None else 'no such weight'}"
        )
    build = method_of(header.config.method).build
    method = build(weight, target.rank, target.alpha, target.parts, target.rows)
    with torch.no_grad():
        for factor, tensor in method.state_dict().items():
            stored = tensors.get(f"{key}.{factor}")
            if stored is None or stored.shape != tensor.shape:
                shape = "absent" if stored is None else f"of shape {tuple(stored.shape)}"
                raise InputError(
                    f"{path}: {key}.{factor} is {shape}, and should be {tuple(tensor.shape)}; save it again"
                )
            tensor.copy_(stored)
    return method


def _factor_keys(methods: dict[Target, Method], tensors: dict[str, Tensor], path: Path) -> set[str]:
    """Names of the tensors in the file that are methods' own; what is called like one, and is none, is refused."""
    names = {factor for method in methods.values() for factor in method.state_dict()}
    known = {f"{_join(at.path, at.parameter)}.{factor}" for at, method in methods.items() for factor in names}
    if unknown := [key for key in tensors if key.rpartition(".")[2] in names and key not in known]:
        raise InputError(f"{path}: {some(unknown, 2)} is in the file and not in its header; save it again")
    return known


def _check_values(
    modules: dict[str, nn.Module], config: LoRAConfig, unfrozen: list[str], values: dict[str, Tensor], path: Path
) -> None:
    for key, tensor in values.items():
        module_path, _, name = key.rpartition(".")
        present = state.direct_tensors(modules[module_path]).get(name) if module_path in modules else None
        if present is None:
            raise InputError(f"{path}: the file has '{key}', the model has not; pass heads=False to leave heads out")
        if not owns(config, unfrozen, module_path, modules[module_path]):
            raise InputError(f"{path}: the file has '{key}', which its header does not unfreeze; save it again")
        if present.shape != tensor.shape:
            raise InputError(
                f"{path}: '{key}' is {tuple(tensor.shape)} in the file and {tuple(present.shape)} in the model; "
                f"create the model with the same number of classes, or pass heads=False"
            )
    needed = [
        _join(module_path, name)
        for module_path, module in modules.items()
        if is_under(module_path, unfrozen)
        for name in state.direct_tensors(module)
        if name not in module._non_persistent_buffers_set
    ]
    absent = [head for head in unfrozen if head not in modules] + [key for key in needed if key not in values]
    if absent:
        raise InputError(f"{path}: {some(absent, 2)} of the unfrozen {some(unfrozen)} is missing; save it again")


def _left_out(modules: dict[str, nn.Module], methods: dict[Target, Method], unfrozen: list[str]) -> list[LeftOut]:
    adapted = {target.path for target in methods}
    return [
        LeftOut(path, type(module).__name__, "not in the adapter's file")
        for path, module in modules.items()
        if any(True for _ in module.parameters(recurse=False)) and path not in adapted and not is_under(path, unfrozen)
    ]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
