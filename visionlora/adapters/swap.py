"""Change the class of one module instance, and have pickle and deepcopy follow.

A swapped class bears its base's name and module, so that ``torch.fx`` and people see the layer that
they know. Pickle would look that name up and find the base, hence ``__reduce_ex__``.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Namespace = dict[str, Any]
_classes: dict[tuple[Any, ...], type] = {}


def swap(module: nn.Module, make: Callable[..., Namespace], *args: Any) -> None:
    """Give ``module`` a subclass of its class with the members ``make(base, *args)``.

    ``base`` is the class that the module has now; ``make`` is a function at a file's top level; ``args``
    are hashable and can be pickled.
    """
    module.__class__ = _subclass(type(module), make, *args)
    _forget_compiled()


def unswap(module: nn.Module) -> None:
    """Give ``module`` back the class that it had before ``swap``."""
    module.__class__ = base_of(module)
    _forget_compiled()


def is_swapped(module: nn.Module, make: Callable[..., Namespace]) -> bool:
    """Whether ``module`` now has a class made by ``swap(module, make, ...)``."""
    swapped = vars(type(module)).get("__swapped__")
    return swapped is not None and swapped[1] is make


def base_of(module: nn.Module) -> type:
    """The class that a swapped ``module`` had before the last ``swap``."""
    base: type = vars(type(module))["__swapped__"][0]
    return base


def plain_class(module: nn.Module) -> type:
    """The class that ``module`` had before any ``swap``, or has."""
    found = type(module)
    while (swapped := vars(found).get("__swapped__")) is not None:
        found = swapped[0]
    return found


def args_of(module: nn.Module) -> tuple[Any, ...]:
    """What the last ``swap`` of ``module`` gave to its ``make``."""
    args: tuple[Any, ...] = vars(type(module))["__swapped__"][2:]
    return args


def _forget_compiled() -> None:
    """Have torch.compile look at its models again: torch 2.10 does not notice that a module's class is another."""
    if "torch._dynamo" in sys.modules:  # else nothing was compiled
        torch.compiler.reset()


def _subclass(base: type, make: Callable[..., Namespace], *args: Any) -> type:
    key = (base, make, *args)
    if key not in _classes:
        names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
        members = {"__swapped__": key, "__reduce_ex__": _reduce, **names, **make(base, *args)}
        _classes[key] = type(base.__name__, (base,), members)
    return _classes[key]


def _reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    reduced: Any = object.__reduce_ex__(self, max(int(protocol), 2))
    return (_rebuild, vars(type(self))["__swapped__"], *reduced[2:])


def _rebuild(base: type, make: Callable[..., Namespace], *args: Any) -> Any:
    cls: Any = _subclass(base, make, *args)
    return cls.__new__(cls)
