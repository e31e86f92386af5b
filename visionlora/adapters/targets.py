"""From names and patterns to the layers that get an adapter, and a reason for each that does not."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from visionlora.adapters.adaptable import (
    ADAPTABLE,
    SEPARATE_WEIGHTS,
    base_modules,
    obstacle,
    tied_parameters,
    weight_names,
)
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.methods.registry import method_of
from visionlora.adapters.paths import join
from visionlora.adapters.patterns import BEFORE, PRESETS, is_under, pattern_matches, split_parts
from visionlora.adapters.qkv import part_rows
from visionlora.adapters.unfreezing import resolve_unfrozen, trains_fully
from visionlora.errors import InputError, did_you_mean, some


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
    unfrozen = resolve_unfrozen(modules, config.unfreeze or [], tied)
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
            yield Target(path, SEPARATE_WEIGHTS[part], rank, alpha)
    else:
        yield Target(path, names[0], rank, alpha, parts, part_rows(model, path, parts))


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
