"""``rank="auto"``: the largest rank for all layers whose numbers keep a budget.

The file's header comes on top: names and checksums, 42 kB of a ViT-Tiny.
"""

import re
from dataclasses import replace

from torch import nn

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.methods.base import largest, rows_of
from visionlora.adapters.methods.registry import method_of
from visionlora.adapters.methods.starts import make_room
from visionlora.adapters.report import methods_bytes, unfrozen_bytes
from visionlora.adapters.targets import resolve
from visionlora.errors import InputError

_UNITS = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def bytes_of(budget: str) -> int:
    """A size such as ``"2MB"`` or ``"500 kB"``, in bytes.

    Raises:
        InputError: it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", budget) if isinstance(budget, str) else None
    if not found or found[2] not in _UNITS:
        raise InputError(f"budget is {budget!r}; give a size such as '2MB' or '500kB'")
    return int(float(found[1]) * _UNITS[found[2]])


def shown_bytes(number: int) -> str:
    """A number of bytes, in MB or kB."""
    return f"{number / 1e6:.2f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def with_rank(model: nn.Module, config: LoRAConfig) -> LoRAConfig:
    """The config with the largest rank for all layers whose adapter keeps the budget, if it asks for that.

    Raises:
        InputError: rank 1 is too large, the method has no rank, or what ``resolve`` raises.
    """
    if config.rank != "auto":
        return config
    assert config.budget is not None
    method = method_of(config.method)
    if not method.has_rank:
        raise InputError(f"rank is 'auto', and {config.method} has no rank; leave rank and budget out")
    one = replace(config, rank=1, budget=None)
    targets, unfrozen, _ = resolve(model, one)
    weights = []
    for target in targets:
        weight = model.get_submodule(target.path)._parameters[target.parameter]
        assert weight is not None
        weights.append(rows_of(weight, target.rows).to("meta"))
    fixed = unfrozen_bytes(model, unfrozen)

    def size(rank: int) -> int:
        methods = (make_room(method.build_capped(weight, rank, 1.0), config.init) for weight in weights)
        return fixed + methods_bytes(methods)

    budget, least = bytes_of(config.budget), size(1)
    if least > budget:
        of_it = f", {shown_bytes(fixed)} of it for what is unfrozen" if fixed else ""
        raise InputError(
            f"budget is {config.budget!r}, and rank 1 everywhere takes {shown_bytes(least)}{of_it}; give more, or "
            "fewer targets"
        )
    return replace(one, rank=largest(lambda rank: size(rank) <= budget, max(max(each.shape) for each in weights)))
