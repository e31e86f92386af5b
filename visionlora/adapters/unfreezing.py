"""What trains fully beside an adapter: from names and patterns to modules and parameters."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from visionlora.adapters.adaptable import base_modules, is_normalisation, tied_parameters
from visionlora.adapters.paths import join
from visionlora.adapters.patterns import PRESETS, is_under, pattern_matches
from visionlora.errors import InputError, did_you_mean

UNFREEZE_PRESETS = ("norms", "biases")


def resolve_unfrozen(modules: dict[str, nn.Module], names: list[str], tied: dict[int, list[str]]) -> list[str]:
    """Names of the modules and parameters that these stand for; ``tied``: id of a parameter -> its names.

    Raises:
        InputError: a name matches nothing, or what it matches is shared with a part that nobody named, or has no shape
            yet.
    """
    unfrozen: list[str] = []
    for name, matched in matched_unfrozen(names, modules).items():
        if not matched:
            known = [*modules, *(each for places in tied.values() for each in places)]
            raise InputError(f"unfreeze '{name}' matches no module and no parameter{did_you_mean(name, known)}")
        unfrozen += matched
    unfrozen = [
        path for path in dict.fromkeys(unfrozen) if not is_under(path, [root for root in unfrozen if root != path])
    ]
    parameters = [
        (root, name, parameter)
        for root in unfrozen
        for name, parameter in (modules[root].named_parameters() if root in modules else [_parameter(root, modules)])
        if id(parameter) in tied  # Not another adapter's.
    ]
    ids = {id(parameter) for _, _, parameter in parameters}
    for root, name, parameter in parameters:
        if nn.parameter.is_lazy(parameter):
            raise InputError(f"unfreeze '{root}': the shape of its {name} is not known before a first forward")
        places = tied[id(parameter)]
        # A head under several names is one head; what is tied in part would train a layer that nobody named.
        inside = [place for place in places if is_under(place, unfrozen)]
        outside = [place for place in places if place not in inside and not _is_twin(place, modules, ids)]
        if outside or not inside:
            raise InputError(
                f"unfreeze '{root}': its {name} is shared with the rest of the model ({' = '.join(places)}); "
                f"unfreeze them all, or give it a copy of its own"
            )
    return unfrozen


def matched_unfrozen(patterns: Iterable[str], modules: dict[str, nn.Module]) -> dict[str, list[str]]:
    """For each pattern the modules that it matches or, if there are none, the parameters."""
    parameters: dict[str, Any] = {name: None for names in tied_parameters(modules).values() for name in names}
    matched = {}
    for pattern in patterns:
        if pattern in UNFREEZE_PRESETS and pattern not in modules:
            matched[pattern] = [name for name in parameters if _in_unfreeze_preset(pattern, name, modules)]
            continue
        found = [path for path in modules if path and pattern_matches(pattern, path, modules)]
        if not found and pattern not in PRESETS:
            found = [name for name in parameters if pattern_matches(pattern, name, parameters)]
        matched[pattern] = found
    return matched


def trains_fully(path: str, module: nn.Module, unfrozen: Iterable[str]) -> bool:
    """Whether the module, or each of its own parameters, is among what is unfrozen."""
    own = [join(path, name) for name, parameter in module._parameters.items() if parameter is not None]
    return is_under(path, unfrozen) or (bool(own) and all(is_under(key, unfrozen) for key in own))


def unfrozen_parameters(model: nn.Module, root: str) -> list[nn.Parameter]:
    """The parameters that an unfrozen module or parameter of this name stands for."""
    modules = dict(base_modules(model))
    return list(modules[root].parameters()) if root in modules else [_parameter(root, modules)[1]]


def _parameter(key: str, modules: dict[str, nn.Module]) -> tuple[str, nn.Parameter]:
    path, _, name = key.rpartition(".")
    parameter = modules[path]._parameters[name]
    assert parameter is not None
    return name, parameter


def _is_twin(place: str, modules: dict[str, nn.Module], ids: set[int]) -> bool:
    """Whether the layer that holds the parameter of this name holds parameters of these ids only."""
    holder = modules[place.rpartition(".")[0]]
    return all(id(parameter) in ids for parameter in holder.parameters(recurse=False))


def _in_unfreeze_preset(preset: str, name: str, modules: dict[str, nn.Module]) -> bool:
    path, _, parameter = name.rpartition(".")
    return is_normalisation(modules[path]) if preset == "norms" else parameter.endswith("bias")
