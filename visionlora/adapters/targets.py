"""From names and patterns to the layers that get an adapter, and a reason for each that does not."""

import fnmatch
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.layer import LayerAdapters
from visionlora.adapters.methods.registry import method_of
from visionlora.adapters.norm import has_running_stats
from visionlora.adapters.paths import join, named_modules, numbered, plain
from visionlora.adapters.qkv import PARTS, part_rows
from visionlora.errors import InputError, did_you_mean, some

PRESETS = ("all", "attention", "conv", "linear")
BEFORE = "before:"
"""And a module's name: all that is defined before it."""
UNFREEZE_PRESETS = ("norms", "biases")
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ADAPTABLE = (nn.Linear, *CONVS, nn.MultiheadAttention)

_SEPARATE = dict(zip(PARTS, ("q_proj_weight", "k_proj_weight", "v_proj_weight"), strict=True))
_PARTS_SUFFIX = re.compile(r"(.*):([qkv](?:,[qkv])*)")
_ATTENTION_CLASS = re.compile(r"atte?n", re.IGNORECASE)
_ATTENTION_NAMES = {"attn", "attention", "self_attn", "self_attention"}
_NOT_A_PROJECTION = re.compile(r"mlp|ffn|cpb|pos|gate|norm|fc\d", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """One parameter that gets an adapter.

    Attributes:
        path: the layer's name.
        parameter: ``"weight"``, or one of ``nn.MultiheadAttention``'s.
        parts, rows: of a fused projection, else empty and None (``adapters.qkv``).
    """

    path: str
    parameter: str
    rank: int
    alpha: float
    parts: str = ""
    rows: Tensor | None = None


@dataclass(frozen=True)
class LeftOut:
    """A layer with parameters that is not adapted, and why."""

    path: str
    kind: str
    reason: str


def base_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """``model.named_modules()`` without the adapters' and torch.compile's wrappers."""
    inside_adapters = ""
    for path, module in named_modules(model):
        if inside_adapters and path.startswith(inside_adapters):
            continue
        if isinstance(module, LayerAdapters):
            inside_adapters = f"{path}."
            continue
        yield path, module


def resolve(model: nn.Module, config: LoRAConfig) -> tuple[list[Target], list[str], list[LeftOut]]:
    """Find what the config names in the model.

    Returns:
        the targets, the names of the unfrozen modules, and every other layer that holds parameters.

    Raises:
        InputError: a pattern matches nothing, or only layers that can't be adapted.
    """
    modules = dict(base_modules(model))
    # A parametrized layer without bias has no parameters of its own, and must still be named.
    layers = [
        path
        for path, module in modules.items()
        if isinstance(module, ADAPTABLE) or any(True for _ in module.parameters(recurse=False))
    ]
    tied = tied_parameters(modules)
    unfrozen = _unfrozen(modules, config.unfreeze or [], tied)
    why_not = method_of(config.method).obstacle
    reasons = {path: reason for path in layers if (reason := obstacle(modules[path], tied) or why_not(modules[path]))}
    for path in layers:
        if weights := [name for name in weight_names(modules[path]) if join(path, name) in unfrozen]:
            reasons[path] = f"its {weights[0]} is unfrozen and trains fully"
    candidates = [path for path in layers if path not in reasons and not is_under(path, unfrozen)]

    chosen: dict[str, str] = {}
    for target in config.target_patterns:
        pattern, parts = split_parts(target)
        matched = [path for path in candidates if pattern_matches(pattern, path, modules)]
        if not matched:
            raise InputError(_nothing_matches(target, pattern, modules, candidates, reasons, unfrozen))
        for path in matched:
            whole = path in chosen and not (chosen[path] and parts)
            chosen[path] = (
                "" if whole else ",".join(sorted({*parts.split(","), *chosen.get(path, "").split(",")} - {""}))
            )
    excluded = [path for path in chosen if any(pattern_matches(p, path, modules) for p in config.exclude)]
    for pattern in config.exclude:
        if not any(pattern_matches(pattern, path, modules) for path in layers) and not pattern.startswith(BEFORE):
            raise InputError(f"exclude '{pattern}' matches no layer{did_you_mean(pattern, layers)}")

    targets = [
        target
        for path, parts in chosen.items()
        if path not in excluded
        for target in _targets(model, path, parts, config, modules)
    ]
    if config.target_patterns and not targets:
        raise InputError(
            f"exclude {config.exclude} leaves none of the targets {config.target_patterns}; make it narrower"
        )
    for pattern in {**config.rank_pattern, **config.alpha_pattern}:
        if not any(pattern_matches(pattern, target.path, modules) for target in targets):
            raise InputError(f"rank or alpha pattern '{pattern}' matches no adapted layer; adapted: {some(chosen)}")
    if not targets and not unfrozen:
        raise InputError("nothing to train: give targets, or modules to unfreeze")
    reasons |= dict.fromkeys(excluded, "excluded")
    left_out = [
        LeftOut(path, type(modules[path]).__name__, reasons.get(path, "not targeted"))
        for path in layers
        if path not in {target.path for target in targets} and not trains_fully(path, modules[path], unfrozen)
    ]
    return targets, unfrozen, left_out


def split_parts(target: str) -> tuple[str, str]:
    """``"attn.qkv:q,v"`` -> ``("attn.qkv", "q,v")``; a regular expression keeps its colons."""
    found = _PARTS_SUFFIX.fullmatch(target)
    return (found[1], found[2]) if found and found[1] not in ("re", "before") else (target, "")


def pattern_matches(pattern: str, path: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a preset, ``before:`` and a module, a regular expression, a glob or a name matches a layer's name.

    A name stands for that module, or, where there is none, for every module whose name ends so.
    """
    pattern = plain(pattern)
    if pattern in PRESETS and pattern not in modules:
        return _in_preset(pattern, path, modules)
    if pattern.startswith(BEFORE):
        return _is_before(pattern.removeprefix(BEFORE), path, modules)
    if pattern.startswith("re:"):
        try:
            return re.fullmatch(pattern[3:], path) is not None
        except re.error as error:
            raise InputError(f"'{pattern}' is not a regular expression: {error}") from error
    if any(character in pattern for character in "*?["):
        return fnmatch.fnmatchcase(path, pattern)
    return path == pattern if pattern in modules else path.endswith(f".{pattern}")


def is_under(path: str, roots: Iterable[str]) -> bool:
    """Whether ``path`` is one of the modules, or inside one."""
    return any(root in ("", path) or path.startswith(f"{root}.") for root in roots)


def trains_fully(path: str, module: nn.Module, unfrozen: Iterable[str]) -> bool:
    """Whether the module, or each of its own parameters, is among what is unfrozen."""
    own = [join(path, name) for name, parameter in module._parameters.items() if parameter is not None]
    return is_under(path, unfrozen) or (bool(own) and all(is_under(key, unfrozen) for key in own))


def obstacle(layer: nn.Module, tied: dict[int, list[str]]) -> str:
    """Why the layer can't be adapted, or an empty string; ``tied``: id of a parameter -> its names."""
    if not isinstance(layer, ADAPTABLE):
        if _is_normalisation(layer):
            return "normalisation layer"
        return "neither linear nor convolution nor nn.MultiheadAttention"
    names = weight_names(layer)
    if not names or hasattr(layer, "parametrizations"):
        return "its weight is parametrized (weight norm, spectral norm or pruning); remove that first"
    for name in names:
        weight = layer._parameters[name]
        assert weight is not None
        if nn.parameter.is_lazy(weight):
            return "its shape is not known before a first forward"
        if type(weight) is not nn.Parameter:
            kind = type(weight).__name__
            return f"its {name} is of class {kind}, and updates are added to plain tensors; adapt before quantising"
        if not weight.is_floating_point():
            return f"its {name} is {str(weight.dtype).removeprefix('torch.')}, not a floating-point tensor"
        if weight.is_meta:
            return f"its {name} is on the meta device; load the weights first"
        if len(tied[id(weight)]) > 1:
            return f"its {name} is tied: {' = '.join(tied[id(weight)])}"
    return ""


def tied_parameters(modules: dict[str, nn.Module]) -> dict[int, list[str]]:
    """id of every parameter -> its names; a tied one has several."""
    names: dict[int, list[str]] = {}
    for path, module in modules.items():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                names.setdefault(id(parameter), []).append(join(path, name))
    return names


def unfrozen_parameters(model: nn.Module, root: str) -> list[nn.Parameter]:
    """The parameters that an unfrozen module or parameter of this name stands for."""
    modules = dict(base_modules(model))
    return list(modules[root].parameters()) if root in modules else [_parameter(root, modules)[1]]


def weight_names(layer: nn.Module) -> list[str]:
    """Names of the parameters that a whole-layer target adapts."""
    names = ["weight"]
    if isinstance(layer, nn.MultiheadAttention):
        names = ["in_proj_weight", *_SEPARATE.values()]
    return [name for name in names if layer._parameters.get(name) is not None]


def _targets(
    model: nn.Module, path: str, parts: str, config: LoRAConfig, modules: dict[str, nn.Module]
) -> Iterator[Target]:
    assert config.rank != "auto"
    rank, alpha = config.rank, config.alpha
    for pattern, value in config.rank_pattern.items():
        rank = value if pattern_matches(pattern, path, modules) else rank
    for pattern, number in config.alpha_pattern.items():
        alpha = number if pattern_matches(pattern, path, modules) else alpha
    layer, names = modules[path], weight_names(modules[path])
    if not parts:
        for name in names:
            yield Target(path, name, rank, alpha)
    elif isinstance(layer, nn.MultiheadAttention) and "in_proj_weight" not in names:
        for part in parts.split(","):
            yield Target(path, _SEPARATE[part], rank, alpha)
    else:
        yield Target(path, names[0], rank, alpha, parts, part_rows(model, path, parts))


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


def _unfrozen(modules: dict[str, nn.Module], names: list[str], tied: dict[int, list[str]]) -> list[str]:
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
    return _is_normalisation(modules[path]) if preset == "norms" else parameter.endswith("bias")


def _is_normalisation(module: nn.Module) -> bool:
    return has_running_stats(module) or "norm" in type(module).__name__.lower()


def _in_preset(preset: str, path: str, modules: dict[str, nn.Module]) -> bool:
    layer = modules[path]
    if preset == "all":
        return True
    if preset == "conv":
        return isinstance(layer, CONVS)
    if preset == "linear":
        return isinstance(layer, nn.Linear)
    return _is_attention_projection(path, modules)


def _is_before(stage: str, path: str, modules: dict[str, nn.Module]) -> bool:
    names = list(modules)
    first = next((name for name in names if name == stage), None)
    first = first or next((name for name in names if name.endswith(f".{stage}")), None)
    if first is None:
        numbers = dict.fromkeys(f"{at[0]}{at[1]}" for name in names if (at := numbered(f"{name}.")))
        raise InputError(
            f"there is no module '{stage}' to begin at{did_you_mean(stage, names)}; there are: "
            f"{some(numbers or names[1:], 12)}"
        )
    return names.index(path) < names.index(first)


def _is_attention_projection(path: str, modules: dict[str, nn.Module]) -> bool:
    layer = modules[path]
    if isinstance(layer, nn.MultiheadAttention):
        return True
    if isinstance(layer, CONVS) and any(size != 1 for size in layer.kernel_size):
        return False
    components = path.split(".")
    for depth in range(len(components) - 1, 0, -1):
        if _NOT_A_PROJECTION.search(components[depth]):
            return False
        above = modules[".".join(components[:depth])]
        if components[depth - 1] in _ATTENTION_NAMES or _ATTENTION_CLASS.search(type(above).__name__):
            return True
    return False


def _nothing_matches(
    target: str,
    pattern: str,
    modules: dict[str, nn.Module],
    candidates: list[str],
    reasons: dict[str, str],
    unfrozen: list[str],
) -> str:
    if refused := [path for path in reasons if pattern_matches(pattern, path, modules)]:
        kind = type(modules[refused[0]]).__name__
        return f"target '{target}' matches {some(refused, 3)} ({kind}), which can't be adapted: {reasons[refused[0]]}"
    if pattern not in PRESETS and (inside := [p for p in modules if p and pattern_matches(pattern, p, modules)]):
        if is_under(inside[0], unfrozen):
            return f"target '{target}' is unfrozen and trains fully; name it in targets or in unfreeze, not in both"
        return f"target '{target}' is a {type(modules[inside[0]]).__name__}, not a layer; try '{inside[0]}.*'"
    return f"target '{target}' matches no layer{did_you_mean(pattern, candidates)}; there are: {some(candidates, 8)}"
