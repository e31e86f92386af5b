"""Which adapters are on a model, which of them are active, and what the model remembers of them."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from visionlora.adapters import state
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.layer import LayerAdapters, adapted_layers, adapters_of
from visionlora.adapters.paths import named_modules, unwrapped
from visionlora.errors import InputError, did_you_mean

_KEY = "_visionlora"


@dataclass
class Attached:
    """What the model that adapters were attached to remembers: by adapter, and how it was before."""

    configs: dict[str, LoRAConfig] = field(default_factory=dict)
    unfrozen: dict[str, list[str]] = field(default_factory=dict)
    required_grad: set[str] = field(default_factory=set)


def remember(model: nn.Module, name: str, config: LoRAConfig, unfrozen: list[str]) -> None:
    """Note an adapter on the model; with the first one, which parameters require gradients before it."""
    attached: Attached = vars(unwrapped(model)).setdefault(_KEY, Attached())
    if not attached.configs:
        parameters = unwrapped(model).named_parameters()
        attached.required_grad = {path for path, tensor in parameters if tensor.requires_grad}
    attached.configs[name] = config
    attached.unfrozen[name] = unfrozen


def forget(model: nn.Module, name: str) -> None:
    """Of one adapter, on the model and its parts."""
    for module in model.modules():
        if attached := vars(module).get(_KEY):
            attached.configs.pop(name, None)
            attached.unfrozen.pop(name, None)


def forget_all(model: nn.Module) -> list[tuple[nn.Module, Attached]]:
    """What the model and its parts remembered, by module."""
    return [(module, vars(module).pop(_KEY)) for module in model.modules() if _KEY in vars(module)]


def adapter_names(model: nn.Module) -> list[str]:
    """Names of the adapters on the model, in the order in which they were attached."""
    attached: Attached | None = vars(unwrapped(model)).get(_KEY)
    found = dict.fromkeys(attached.configs if attached else ())
    for _, layer in adapted_layers(model):
        found |= dict.fromkeys(adapters_of(layer))
    for _, _, record in state.owned_modules(model):
        found |= dict.fromkeys(record.names)
    return list(found)


def active_names(model: nn.Module) -> list[str]:
    """Names of the active adapters."""
    active = dict.fromkeys(name for _, layer in adapted_layers(model) for name in adapters_of(layer).active)
    active |= dict.fromkeys(record.live for _, _, record in state.owned_modules(model) if record.live != state.BASE)
    return [name for name in adapter_names(model) if name in active]


def description_of(model: nn.Module, name: str) -> tuple[LoRAConfig, list[str]]:
    """An adapter's config and unfrozen modules; InputError if it was not attached to this very module."""
    attached: Attached | None = vars(unwrapped(model)).get(_KEY)
    if attached is None or name not in attached.configs:
        known = list(attached.configs) if attached else []
        elsewhere = [path for path, module in named_modules(model) if _KEY in vars(module) and path]
        hint = f"; there is one on '{elsewhere[0]}'" if elsewhere else ""
        raise InputError(f"no adapter '{name}' was attached to this model{did_you_mean(name, known)}{hint}")
    return attached.configs[name], attached.unfrozen[name]


def attached_to(model: nn.Module) -> Attached:
    """What the model remembers of its adapters; for one that ``description_of`` knows."""
    attached: Attached = vars(unwrapped(model))[_KEY]
    return attached


def check_name(model: nn.Module, name: str) -> None:
    """Raise InputError if an adapter can't be called so, or if there is one of that name."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(LayerAdapters(), name):
        raise InputError(f"'{name}' can't name an adapter; use letters, digits, '_' and '-' (and no attribute's name)")
    if name in adapter_names(model):
        raise InputError(f"the model has an adapter '{name}' already; detach it first, or give another name")


def check_known(model: nn.Module, names: Iterable[str]) -> None:
    """Raise InputError if one of these is no adapter of the model."""
    known = adapter_names(model)
    for name in names:
        if name not in known:
            raise InputError(f"no adapter '{name}' on this model{did_you_mean(name, known)}; there are: {known}")


def weights_of(names: str | Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """The weights of adapters, 1 where only names are given. InputError if one is no finite number."""
    if not isinstance(names, Mapping):
        return dict.fromkeys([names] if isinstance(names, str) else names, 1.0)
    for name, weight in names.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise InputError(f"the weight of '{name}' is {weight!r}; give a finite number")
    return {name: float(weight) for name, weight in names.items()}
