"""What a name, a glob, a regular expression or a preset means among the names of a model's modules."""

import fnmatch
import re
from collections.abc import Iterable

from torch import nn

from visionlora.adapters.adaptable import CONVS
from visionlora.adapters.paths import numbered, plain
from visionlora.errors import InputError, did_you_mean, some

PRESETS = ("all", "attention", "conv", "linear")
BEFORE = "before:"
"""And a module's name: all that is defined before it."""
_PARTS_SUFFIX = re.compile(r"(.*):([qkv](?:,[qkv])*)")
_ATTENTION_CLASS = re.compile(r"atte?n", re.IGNORECASE)
_ATTENTION_NAMES = {"attn", "attention", "self_attn", "self_attention"}
_NOT_A_PROJECTION = re.compile(r"mlp|ffn|cpb|pos|gate|norm|fc\d", re.IGNORECASE)


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
