"""Adapters on a whole model: attach, activate, disable, merge, detach."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from visionlora.adapters import activations, norm, others, state
from visionlora.adapters.adaptable import base_modules
from visionlora.adapters.attached import (
    active_names,
    adapter_names,
    check_known,
    check_name,
    forget,
    forget_all,
    remember,
    weights_of,
)
from visionlora.adapters.budget import with_rank
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.folding import refold, unfold_batchnorm
from visionlora.adapters.layer import (
    MEMORY,
    ROUTES,
    LayerRoute,
    Memory,
    adapted_layers,
    adapted_parameters,
    adapters_of,
    add_adapter,
    effective_weight,
    is_adapted,
    methods_of,
    remove_adapter,
    write_merged,
)
from visionlora.adapters.methods.base import Method, rows_of
from visionlora.adapters.methods.registry import method_of
from visionlora.adapters.methods.starts import start
from visionlora.adapters.paths import join, unwrapped
from visionlora.adapters.patterns import is_under
from visionlora.adapters.report import Report, describe
from visionlora.adapters.targets import LeftOut, Target, resolve
from visionlora.errors import InputError, did_you_mean


def attach(model: nn.Module, config: LoRAConfig | None = None, name: str = "default") -> Report:
    """Give the model an adapter and make it the active one; everything else is frozen.

    The model stays an ordinary ``nn.Module`` with the base's parameter names. A new adapter starts at
    exactly the base.

    Args:
        model: any model, on any device; changed in place.
        config: what to adapt; by default rank 8 on every layer that can be adapted.
        name: of the adapter, for models that hold several.

    Returns:
        the report; print it to see what is adapted and what was left out, and why.

    Raises:
        InputError: a target matches nothing or can't be adapted, or the name is taken; the model is
            then unchanged.
    """
    config = config or LoRAConfig()
    check_name(model, name)
    others.refuse_foreign(model)
    config = with_rank(model, config)
    targets, unfrozen, left_out = resolve(model, config)
    methods = {target: _method(model, target, config) for target in targets}
    return install(model, name, config, methods, unfrozen, left_out)


def install(
    model: nn.Module,
    name: str,
    config: LoRAConfig,
    methods: dict[Target, Method],
    unfrozen: list[str],
    left_out: list[LeftOut],
) -> Report:
    """Put ready-made methods on the model's layers, and make the adapter the active one."""
    unfold_batchnorm(model)
    report = describe(model, name, methods, unfrozen, left_out)
    remember(model, name, config, unfrozen)
    by_layer: dict[str, dict[str, Method]] = {}
    for target, method in methods.items():
        by_layer.setdefault(target.path, {})[target.parameter] = method
    for path, layer_methods in by_layer.items():
        add_adapter(model.get_submodule(path), name, layer_methods)
    modules = dict(base_modules(model))
    for path, names in owned_names(config, unfrozen, modules).items():
        trains = [each for each in names if config.batchnorm == "train" or is_under(join(path, each), unfrozen)]
        state.own(modules[path], name, names, trains)
    for module in modules.values():
        activations.keep_less(module)
    others.warn_of_saving(unwrapped(model))
    activate(model, name)
    return report


def owned_names(config: LoRAConfig, unfrozen: list[str], modules: dict[str, nn.Module]) -> dict[str, list[str]]:
    """Module -> those of its tensors of which an adapter has its own values: unfrozen, or BatchNorm that changes.

    What is tied is in the module that comes first.
    """
    owned: dict[str, list[str]] = {}
    seen: set[int] = set()
    for path, module in modules.items():
        changes = config.batchnorm != "frozen" and norm.has_running_stats(module)
        for name, tensor in state.direct_tensors(module).items():
            if (changes or is_under(join(path, name), unfrozen)) and id(tensor) not in seen:
                owned.setdefault(path, []).append(name)
                seen.add(id(tensor))
    return owned


def activate(model: nn.Module, names: str | Sequence[str] | Mapping[str, float]) -> None:
    """Make the named adapters the active ones; their updates add up. An empty list shows the base.

    The active adapters' factors and unfrozen modules require gradients, and nothing else does. Nothing is built anew:
    a model under torch.compile is not compiled again, where the adapters have the same method, layers and shapes
    (``pad_ranks`` makes them equal) and the change is from as many adapters to as many.

    Args:
        model: with adapters.
        names: one name, several, or names with weights: ``{"a": 0.5, "b": -1.0}`` adds half of what a adds and takes
            away what b adds. Weights are for updates; unfrozen modules and BatchNorm are an adapter's own or not.

    Raises:
        InputError: no such adapter, or two of them own the same unfrozen module or have methods that don't add up on
            the same layer, or one with a weight other than 1 has a method that doesn't add; nothing is changed then.
    """
    weights = weights_of(names)
    names = list(weights)
    check_known(model, names)
    for path, _, record in state.owned_modules(model):
        if len(owners := [name for name in names if name in record.names]) > 1:
            where = f"'{path}'" if path else "tensors of the model itself"
            raise InputError(f"adapters {owners} both have their own {where}; activate one of them")
    for path, layer in adapted_layers(model):
        for parameter in adapted_parameters(layer):
            if len(alone := [name for name in names if not _adds(layer, name, parameter)]) > 1:
                raise InputError(f"adapters {alone} don't add up on '{path}'; activate one of them")
    _check_weights(model, weights)
    unfold_batchnorm(model)
    for _, layer in adapted_layers(model):
        adapters_of(layer).activate(weights)
    for _, module, record in state.owned_modules(model):
        state.show(module, next((name for name in names if name in record.names), state.BASE))
    _freeze(model, names)


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Within the block the model is exactly the base, unfrozen modules and BatchNorm state included.

    All BatchNorm is frozen meanwhile, for a forward in training mode would change the base's statistics.
    Parameters keep their identity, so an optimizer is not disturbed.
    """
    folded = unfold_batchnorm(model)
    active = {layer: adapters_of(layer).active for _, layer in adapted_layers(model)}
    live = {module: record.live for _, module, record in state.owned_modules(model)}
    held = [module for module in live if norm.has_running_stats(module) and not norm.is_frozen(module)]
    try:
        for layer in active:
            adapters_of(layer).activate({})
        for module in live:
            state.show(module, state.BASE)
        for module in held:
            norm.freeze(module)
        yield
    finally:
        for module in held:
            norm.unfreeze(module)
        for layer, names in active.items():
            adapters_of(layer).activate(names)
        for module, owner in live.items():
            state.show(module, owner)
        refold(folded)


def merge(model: nn.Module, scale: float = 1.0) -> nn.Module:
    """Write the active adapters into the weights and take every adapter off, in place.

    The model then has the base's classes, parameter names and ``requires_grad`` flags. Merging a model
    without adapters changes nothing.

    Args:
        model: with adapters or without.
        scale: how much of each update; with 1, what is merged is what the model computes. Unfrozen modules have none.

    Returns:
        the same model.

    Raises:
        InputError: an adapted weight is not finite or sharded, or an active adapter does not add and the scale is not
            1; the model is then unchanged.
    """
    others.refuse_sharded(model)
    (scale,) = weights_of({"scale": scale}).values()
    active = {layer: adapters_of(layer).active for _, layer in adapted_layers(model)}
    for weights in active.values():
        _check_weights(model, {name: scale * weight for name, weight in weights.items()})
    for layer, weights in active.items():
        adapters_of(layer).activate({name: scale * weight for name, weight in weights.items()})
    if infinite := _not_finite(model):
        for layer, weights in active.items():
            adapters_of(layer).activate(weights)
        raise InputError(f"{infinite} is not finite with its adapters; nothing was merged")
    unfold_batchnorm(model)
    for _, layer in list(adapted_layers(model)):
        write_merged(layer)
    for _, module, _ in list(state.owned_modules(model)):
        state.keep_live(module)
    _restore(model)
    return model


def merged(model: nn.Module, scale: float = 1.0) -> nn.Module:
    """A merged deep copy; the model itself keeps its adapters. Otherwise as ``merge``."""
    others.refuse_sharded(model)
    return merge(copy.deepcopy(model), scale)


def detach(model: nn.Module, name: str | None = None) -> nn.Module:
    """Take one adapter off (all of them by default), in place; with the last one the base is back.

    Raises:
        InputError: no such adapter.
    """
    known = adapter_names(model)
    if name is not None:
        check_known(model, [name])
    unfold_batchnorm(model)
    for gone in known if name is None else [name]:
        for _, layer in list(adapted_layers(model)):
            remove_adapter(layer, gone)
        for _, module, _ in list(state.owned_modules(model)):
            state.disown(module, gone)
        forget(model, gone)
    if remaining := adapter_names(model):
        _freeze(model, [active for active in active_names(model) if active in remaining])
    else:
        _restore(model)
    return model


def set_route(model: nn.Module, route: LayerRoute) -> nn.Module:
    """Choose how gradients reach the factors of every adapted layer; the numbers agree up to rounding.

    Args:
        model: with adapters.
        route: ``"factored"`` goes through r channels, ``"dense"`` through the gradient of the whole weight,
            ``"auto"`` takes the cheaper one for each layer by a cost model (``visionlora.ops.cost``), and
            ``"reference"`` leaves everything to autograd on the dense adapted weight.

    Returns:
        the same model.

    Raises:
        InputError: no such route.
    """
    return _tell_layers(model, "route", route, ROUTES)


def set_memory(model: nn.Module, memory: Memory) -> nn.Module:
    """Choose what adapted layers keep between forward and backward; the numbers are the same to the last bit.

    Args:
        model: with adapters.
        memory: ``"low"`` keeps the input of an activation (GELU, SiLU and their like) and not what it makes of it
            for the adapted layer behind it, which runs the activation again in the backward, and on a GPU no adapted
            weight; ``"fast"`` keeps both.

    Returns:
        the same model.

    Raises:
        InputError: no such choice.
    """
    return _tell_layers(model, "memory", memory, MEMORY)


def _tell_layers(model: nn.Module, what: Literal["route", "memory"], choice: str, known: Sequence[str]) -> nn.Module:
    if choice not in known:
        raise InputError(f"no {what} '{choice}'{did_you_mean(choice, known)}; there are {', '.join(known)}")
    for _, layer in adapted_layers(model):
        setattr(adapters_of(layer), what, choice)
    return model


def _method(model: nn.Module, target: Target, config: LoRAConfig) -> Method:
    weight = model.get_submodule(target.path)._parameters[target.parameter]
    assert weight is not None
    method = method_of(config.method).build_capped(weight, target.rank, target.alpha, target.parts, target.rows)
    if config.factor_dropout and not method.drops_factors:
        raise InputError(f"factor_dropout is {config.factor_dropout}, and {config.method} has no parts to leave out")
    method.factor_dropout = config.factor_dropout
    start(method, rows_of(weight, method.rows), config.init)
    return method


def _check_weights(model: nn.Module, weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        for path, layer in adapted_layers(model) if weight != 1 else ():
            if alone := [method for method in methods_of(layer, name).values() if not method.adds]:
                kind = type(alone[0]).__name__
                raise InputError(f"'{name}' is a {kind} on '{path}', which does not add: its weight can only be 1")


def _not_finite(model: nn.Module) -> str:
    """Name of the first adapted parameter that is not finite, or an empty string."""
    with torch.no_grad():
        for path, layer in adapted_layers(model):
            for parameter in adapted_parameters(layer):
                if not torch.isfinite(effective_weight(layer, parameter)).all():
                    return f"{path}.{parameter}"
    return ""


def _adds(layer: nn.Module, adapter: str, parameter: str) -> bool:
    """Whether the adapter only adds to the layer's parameter, or does nothing to it."""
    method = methods_of(layer, adapter).get(parameter)
    return method is None or method.adds


def _freeze(model: nn.Module, active: list[str]) -> None:
    """Leave gradients to what the active adapters own, and hold BatchNorm unless one of them owns it."""
    modules = [module for _, module in base_modules(model)]
    records = {module: record for module in modules if (record := state.owned_of(module)) and record.live in active}
    # By identity, for a tied parameter is in modules without a record as well.
    training = {
        id(tensor)
        for module, record in records.items()
        for name, tensor in state.direct_tensors(module).items()
        if name in record.trains[record.live]
    }
    for module in modules:
        for parameter in module.parameters(recurse=False):
            # The attribute, for a lazy parameter has no method of that name yet.
            parameter.requires_grad = id(parameter) in training and parameter.is_floating_point()
        if is_adapted(module):
            for adapter, methods in adapters_of(module).items():
                methods.requires_grad_(adapter in active)
        if not norm.has_running_stats(module):
            continue
        owned = records[module].names[records[module].live] if module in records else []
        if set(module._buffers) & set(owned):
            norm.unfreeze(module)
        else:
            norm.freeze(module)


def _restore(model: nn.Module) -> None:
    """Bring back ``requires_grad``, other modules' classes and modes, as they were before the first attach."""
    for module in model.modules():
        norm.unfreeze(module)
        activations.keep_all(module)
        others.stop_warning(module)
    records = forget_all(model)
    # Where a model and a part of it have adapters, the later record saw what the earlier attach had frozen.
    required_grad = {
        id(parameter)
        for module, attached in records
        for path, parameter in module.named_parameters()
        if path in attached.required_grad
    }
    for module, _ in records:
        for parameter in module.parameters():
            parameter.requires_grad = id(parameter) in required_grad
