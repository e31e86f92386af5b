"""Names of modules as the model has them without torch.compile, whose wrappers put ``_orig_mod.`` into them."""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

_WRAPPED = "_orig_mod"
_NUMBERED = re.compile(r"(.*?)(\d+)")


def named_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """``model.named_modules()`` without the wrappers."""
    for path, module in model.named_modules():
        if not is_wrapper(module):
            yield plain(path), module


def is_wrapper(module: nn.Module) -> bool:
    """Whether the module is another one as torch.compile wraps it."""
    return _WRAPPED in module._modules


def plain(path: str) -> str:
    """A name, or a pattern for names, without the wrappers."""
    return re.sub(rf"{_WRAPPED}\.|\.?{_WRAPPED}$", "", path)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, if it is wrapped."""
    while (inner := model._modules.get(_WRAPPED)) is not None:
        model = inner
    return model


def join(path: str, name: str) -> str:
    """The name of a module's part, ``path`` being empty for the model itself."""
    return f"{path}.{name}" if path else name


def numbered(path: str) -> tuple[str, int] | None:
    """``blocks.3.attn.qkv`` -> (``blocks.``, 3); None without a number that ends a part of the name before the last."""
    parts = path.split(".")
    for index, part in enumerate(parts[:-1]):
        if found := _NUMBERED.fullmatch(part):
            return ".".join([*parts[:index], found[1]]), int(found[2])
    return None
