"""An adapter from its file onto a model, or refused with the reason."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from visionlora.adapters import state
from visionlora.adapters.adaptable import base_modules, obstacle, tied_parameters
from visionlora.adapters.attached import check_name
from visionlora.adapters.base_check import check_base
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.header import Header, read_file, under_prefix
from visionlora.adapters.methods.base import Method
from visionlora.adapters.methods.registry import method_of
from visionlora.adapters.methods.starts import make_room
from visionlora.adapters.model import install, owned_names
from visionlora.adapters.others import refuse_foreign
from visionlora.adapters.paths import join
from visionlora.adapters.patterns import is_under
from visionlora.adapters.qkv import part_rows
from visionlora.adapters.report import Report
from visionlora.adapters.saving import factors_of, trained_values
from visionlora.adapters.targets import LeftOut, Target
from visionlora.errors import InputError, some


def load_adapter(
    model: nn.Module,
    path: str | Path,
    name: str = "default",
    heads: bool = True,
    prefix: str = "",
    strict_base: bool = True,
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
        strict_base: refuse a base other than the one that the adapter was made on. The same base in another
            precision, or with position embeddings for another size of image, is none.

    Returns:
        the report, as from ``attach``; ``report.base`` says where the base is not the same to the last bit.

    Raises:
        InputError: the file is damaged or was made on another base, or the name is taken; the model is
            then unchanged.
    """
    path = Path(path)
    check_name(model, name)
    refuse_foreign(model)
    return load_read(model, *read_file(path), path, name, heads, prefix, strict_base)


def load_read(
    model: nn.Module,
    header: Header,
    tensors: dict[str, Tensor],
    path: Path,
    name: str = "default",
    heads: bool = True,
    prefix: str = "",
    strict_base: bool = True,
    other_classes: bool = False,
) -> Report:
    """``load_adapter`` of what ``read_file`` gave of a file, which is not read again.

    With ``other_classes`` an unfrozen tensor may have another shape than the model's, and the adapter's then does.
    """
    if prefix:
        header, tensors = under_prefix(header, tensors, prefix, path)
    modules = dict(base_modules(model))
    base = check_base(model, header, path, heads, strict_base)
    targets = _file_targets(model, modules, header, path)
    methods = {target: _method(modules, target, header, tensors, path) for target in targets}
    unfrozen = header.unfrozen if heads else []
    factors = _factor_keys(methods, tensors, path)
    values = {
        key: tensor
        for key, tensor in tensors.items()
        if key not in factors and (heads or not is_under(key, header.unfrozen))
    }
    _check_values(modules, header.config, unfrozen, values, path, other_classes)
    report = install(model, name, header.config, methods, unfrozen, _left_out(modules, methods, unfrozen))
    with torch.no_grad():
        for key, tensor in values.items():
            module_path, _, tensor_name = key.rpartition(".")
            present = state.direct_tensors(modules[module_path])[tensor_name]
            if present.shape != tensor.shape:  # the base keeps its own; ``state`` swaps the two
                present.data = present.new_empty(tensor.shape)
            present.copy_(tensor)
    return replace(report, base=base)


def restore_adapter(model: nn.Module, path: str | Path, name: str = "default") -> Header:
    """Give an adapter that is attached and active the values that its file has, in place.

    Returns:
        the file's header.

    Raises:
        InputError: the file is damaged, or it was made on another base or with other layers; nothing is changed then.
    """
    path = Path(path)
    header, tensors = read_file(path)
    check_base(model, header, path, heads=True, strict=True)
    own = factors_of(model, name)[0] | trained_values(model, name)[0]
    shapes, others = ({key: tensor.shape for key, tensor in each.items()} for each in (own, tensors))
    if shapes != others:
        raise InputError(f"{path}: holds other tensors than the model's adapter '{name}'; load it into the base alone")
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(tensors[key])
    return header


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
    layer, key = modules[target.path], join(target.path, target.parameter)
    weight = layer._parameters.get(target.parameter)
    if weight is None or (reason := obstacle(layer, tied_parameters(modules))):
        raise InputError(
            f"{path}: {key} can't be adapted in this model: {reason if weight is not None else 'no such weight'}"
        )
    build = method_of(header.config.method).build
    with suppress(NotImplementedError, RuntimeError):  # of a method that computes with the weight's values
        # Before anything of the sizes that the header says is allocated.
        rows = None if target.rows is None else target.rows.to("meta")
        empty = build(weight.detach().to("meta"), target.rank, target.alpha, "", rows)
        _check_factors(make_room(empty, header.config.init), key, tensors, path)
    method = build(weight, target.rank, target.alpha, target.parts, target.rows)
    method.factor_dropout = header.config.factor_dropout
    _check_factors(make_room(method, header.config.init), key, tensors, path)
    with torch.no_grad():
        for factor, tensor in method.state_dict().items():
            tensor.copy_(tensors[f"{key}.{factor}"])
    return method


def _check_factors(method: Method, key: str, tensors: dict[str, Tensor], path: Path) -> None:
    for factor, tensor in method.state_dict().items():
        stored = tensors.get(f"{key}.{factor}")
        if stored is None or stored.shape != tensor.shape:
            shape = "absent" if stored is None else f"of shape {tuple(stored.shape)}"
            raise InputError(f"{path}: {key}.{factor} is {shape}, and should be {tuple(tensor.shape)}; save it again")


def _factor_keys(methods: dict[Target, Method], tensors: dict[str, Tensor], path: Path) -> set[str]:
    """Names of the tensors in the file that are methods' own; what is called like one, and is none, is refused."""
    names = {factor for method in methods.values() for factor in method.state_dict()}
    known = {f"{join(at.path, at.parameter)}.{factor}" for at, method in methods.items() for factor in names}
    if unknown := [key for key in tensors if key.rpartition(".")[2] in names and key not in known]:
        raise InputError(f"{path}: {some(unknown, 2)} is in the file and not in its header; save it again")
    return known


def _check_values(
    modules: dict[str, nn.Module],
    config: LoRAConfig,
    unfrozen: list[str],
    values: dict[str, Tensor],
    path: Path,
    other_classes: bool,
) -> None:
    owned = owned_names(config, unfrozen, modules)
    for key, tensor in values.items():
        module_path, _, name = key.rpartition(".")
        present = state.direct_tensors(modules[module_path]).get(name) if module_path in modules else None
        if present is None:
            raise InputError(f"{path}: the file has '{key}', the model has not; pass heads=False to leave heads out")
        if name not in owned.get(module_path, ()):
            raise InputError(f"{path}: the file has '{key}', which its header does not unfreeze; save it again")
        if present.shape != tensor.shape and not (other_classes and is_under(key, unfrozen)):
            raise InputError(
                f"{path}: '{key}' is {tuple(tensor.shape)} in the file and {tuple(present.shape)} in the model; "
                f"create the model with the same number of classes, or pass heads=False"
            )
    needed = [
        key
        for module_path, names in owned.items()
        for name in names
        if is_under(key := join(module_path, name), unfrozen)
        and name not in modules[module_path]._non_persistent_buffers_set
    ]
    there = [*modules, *(place for places in tied_parameters(modules).values() for place in places)]
    absent = [head for head in unfrozen if head not in there] + [key for key in needed if key not in values]
    if absent:
        raise InputError(f"{path}: {some(absent, 2)} of the unfrozen {some(unfrozen)} is missing; save it again")


def _left_out(modules: dict[str, nn.Module], methods: dict[Target, Method], unfrozen: list[str]) -> list[LeftOut]:
    adapted = {target.path for target in methods}
    return [
        LeftOut(path, type(module).__name__, "not in the adapter's file")
        for path, module in modules.items()
        if any(True for _ in module.parameters(recurse=False)) and path not in adapted and not is_under(path, unfrozen)
    ]
