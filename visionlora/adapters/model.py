"""Adapters on a whole model: attach, activate, disable, merge, detach."""

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from visionlora.adapters import activations, norm, state
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.folding import refold, unfold_batchnorm
from visionlora.adapters.layer import (
    ROUTES,
    LayerAdapters,
    LayerRoute,
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
from visionlora.adapters.methods.base import Method
from visionlora.adapters.methods.registry import method_of
from visionlora.adapters.report import Report, describe
from visionlora.adapters.targets import LeftOut, Target, base_modules, is_under, resolve
from visionlora.errors import InputError, did_you_mean

_KEY = "_visionlora"


@dataclass
class Attached:
    """What the model that adapters were attached to remembers: by adapter, and how it was before."""

    configs: dict[str, LoRAConfig] = field(default_factory=dict)
    unfrozen: dict[str, list[str]] = field(default_factory=dict)
    required_grad: set[str] = field(default_factory=set)


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
    attached: Attached = vars(model).setdefault(_KEY, Attached())
    if not attached.configs:
        attached.required_grad = {path for path, tensor in model.named_parameters() if tensor.requires_grad}
    attached.configs[name] = config
    attached.unfrozen[name] = unfrozen
    by_layer: dict[str, dict[str, Method]] = {}
    for target, method in methods.items():
        by_layer.setdefault(target.path, {})[target.parameter] = method
    for path, layer_methods in by_layer.items():
        add_adapter(model.get_submodule(path), name, layer_methods)
    for path, module in base_modules(model):
        activations.keep_less(module)
        if owns(config, unfrozen, path, module) and state.direct_tensors(module):
            state.own(module, name, trains=is_under(path, unfrozen) or config.batchnorm == "train")
    activate(model, name)
    return report


def owns(config: LoRAConfig, unfrozen: list[str], path: str, module: nn.Module) -> bool:
    """Whether an adapter has its own values of the module's tensors: it is unfrozen, or BatchNorm that changes."""
    return is_under(path, unfrozen) or (config.batchnorm != "frozen" and norm.has_running_stats(module))


def activate(model: nn.Module, names: str | Sequence[str]) -> None:
    """Make the named adapters the active ones; their updates add up. An empty list shows the base.

    The active adapters' factors and unfrozen modules require gradients, and nothing else does.

    Raises:
        InputError: no such adapter, or two of them own the same unfrozen module or have methods that don't add up on
            the same layer; nothing is changed then.
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    known = adapter_names(model)
    for name in names:
        if name not in known:
            raise InputError(f"no adapter '{name}' on this model{did_you_mean(name, known)}; there are: {known}")
    for path, _, record in state.owned_modules(model):
        if len(owners := [name for name in names if name in record.trains]) > 1:
            raise InputError(f"adapters {owners} both have their own '{path}'; activate one of them")
    for path, layer in adapted_layers(model):
        for parameter in adapted_parameters(layer):
            if len(alone := [name for name in names if not _adds(layer, name, parameter)]) > 1:
                raise InputError(f"adapters {alone} don't add up on '{path}'; activate one of them")
    unfold_batchnorm(model)
    for _, layer in adapted_layers(model):
        adapters_of(layer).activate(names)
    for _, module, record in state.owned_modules(model):
        state.show(module, next((name for name in names if name in record.trains), state.BASE))
    _freeze(model, names)


def adapter_names(model: nn.Module) -> list[str]:
    """Names of the adapters on the model, in the order in which they were attached."""
    attached: Attached | None = vars(model).get(_KEY)
    found = dict.fromkeys(attached.configs if attached else ())
    for _, layer in adapted_layers(model):
        found |= dict.fromkeys(adapters_of(layer))
    for _, _, record in state.owned_modules(model):
        found |= dict.fromkeys(record.trains)
    return list(found)


def active_names(model: nn.Module) -> list[str]:
    """Names of the active adapters."""
    active = dict.fromkeys(name for _, layer in adapted_layers(model) for name in adapters_of(layer).active)
    active |= dict.fromkeys(record.live for _, _, record in state.owned_modules(model) if record.live != state.BASE)
    return [name for name in adapter_names(model) if name in active]


def description_of(model: nn.Module, name: str) -> tuple[LoRAConfig, list[str]]:
    """An adapter's config and unfrozen modules; InputError if it was not attached to this very module."""
    attached: Attached | None = vars(model).get(_KEY)
    if attached is None or name not in attached.configs:
        known = list(attached.configs) if attached else []
        elsewhere = [path for path, module in model.named_modules() if _KEY in vars(module) and path]
        hint = f"; there is one on '{elsewhere[0]}'" if elsewhere else ""
        raise InputError(f"no adapter '{name}' was attached to this model{did_you_mean(name, known)}{hint}")
    return attached.configs[name], attached.unfrozen[name]


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
            adapters_of(layer).active = ()
        for module in live:
            state.show(module, state.BASE)
        for module in held:
            norm.freeze(module)
        yield
    finally:
        for module in held:
            norm.unfreeze(module)
        for layer, names in active.items():
            adapters_of(layer).active = names
        for module, owner in live.items():
            state.show(module, owner)
        refold(folded)


def merge(model: nn.Module) -> nn.Module:
    """Write the active adapters into the weights and take every adapter off, in place.

    The model then has the base's classes, parameter names and ``requires_grad`` flags. Merging a model
    without adapters changes nothing.

    Returns:
        the same model.

    Raises:
        InputError: an adapted weight is not finite; the model is then unchanged.
    """
    with torch.no_grad():
        for path, layer in adapted_layers(model):
            for parameter in adapted_parameters(layer):
                if not torch.isfinite(effective_weight(layer, parameter)).all():
                    raise InputError(f"{path}.{parameter} is not finite with its adapters; nothing was merged")
    unfold_batchnorm(model)
    for _, layer in list(adapted_layers(model)):
        write_merged(layer)
    for _, module, _ in list(state.owned_modules(model)):
        state.keep_live(module)
    _restore(model)
    return model


def merged(model: nn.Module) -> nn.Module:
    """A merged deep copy; the model itself keeps its adapters."""
    return merge(copy.deepcopy(model))


def detach(model: nn.Module, name: str | None = None) -> nn.Module:
    """Take one adapter off (all of them by default), in place; with the last one the base is back.

    Raises:
        InputError: no such adapter.
    """
    known = adapter_names(model)
    if name is not None and name not in known:
        raise InputError(f"no adapter '{name}' on this model{did_you_mean(name, known)}; there are: {known}")
    unfold_batchnorm(model)
    for gone in known if name is None else [name]:
        for _, layer in list(adapted_layers(model)):
            remove_adapter(layer, gone)
        for _, module, _ in list(state.owned_modules(model)):
            state.disown(module, gone)
        for _, module in model.named_modules():
            attached: Attached | None = vars(module).get(_KEY)
            if attached:
                attached.configs.pop(gone, None)
                attached.unfrozen.pop(gone, None)
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
    if route not in ROUTES:
        raise InputError(f"no route '{route}'{did_you_mean(route, ROUTES)}; there are {', '.join(ROUTES)}")
    for _, layer in adapted_layers(model):
        adapters_of(layer).route = route
    return model


def check_name(model: nn.Module, name: str) -> None:
    """Raise InputError if an adapter can't be called so, or if there is one of that name."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(LayerAdapters(), name):
        raise InputError(f"'{name}' can't name an adapter; use letters, digits, '_' and '-' (and no attribute's name)")
    if name in adapter_names(model):
        raise InputError(f"the model has an adapter '{name}' already; detach it first, or give another name")


def _method(model: nn.Module, target: Target, config: LoRAConfig) -> Method:
    weight = model.get_submodule(target.path)._parameters[target.parameter]
    assert weight is not None
    return method_of(config.method).build(weight, target.rank, target.alpha, target.parts, target.rows)


def _adds(layer: nn.Module, adapter: str, parameter: str) -> bool:
    """Whether the adapter only adds to the layer's parameter, or does nothing to it."""
    method = methods_of(layer, adapter).get(parameter)
    return method is None or method.adds


def _freeze(model: nn.Module, active: list[str]) -> None:
    """Leave gradients to what the active adapters own, and hold BatchNorm unless one of them owns it."""
    for module in [module for _, module in base_modules(model)]:
        record = state.owned_of(module)
        is_live = record is not None and record.live in active
        trains = record is not None and is_live and record.trains[record.live]
        for parameter in module.parameters(recurse=False):
            # The attribute, for a lazy parameter has no method of that name yet.
            parameter.requires_grad = trains and parameter.is_floating_point()
        if is_adapted(module):
            for adapter, methods in adapters_of(module).items():
                methods.requires_grad_(adapter in active)
        if norm.has_running_stats(module) and is_live:
            norm.unfreeze(module)
        elif norm.has_running_stats(module):
            norm.freeze(module)


def _restore(model: nn.Module) -> None:
    """Bring back ``requires_grad``, other modules' classes and modes, as they were before the first attach."""
    for module in model.modules():
        norm.unfreeze(module)
        activations.keep_all(module)
    records = [(module, vars(module).pop(_KEY)) for module in model.modules() if _KEY in vars(module)]
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
