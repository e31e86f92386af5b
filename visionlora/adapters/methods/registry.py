"""The adapter methods by name."""

from importlib import import_module
from typing import TYPE_CHECKING

from visionlora.errors import InputError, did_you_mean, some

if TYPE_CHECKING:
    from visionlora.adapters.methods.base import Method

# As text where they come along: they import torch, which takes seconds, and a config's names must not.
METHODS: "dict[str, type[Method] | str]" = {
    "lora": "visionlora.adapters.methods.lora.LoRA",
    "rslora": "visionlora.adapters.methods.lora.RSLoRA",
    "dora": "visionlora.adapters.methods.dora.DoRA",
    "lokr": "visionlora.adapters.methods.lokr.LoKr",
    "loha": "visionlora.adapters.methods.loha.LoHa",
    "lora_fa": "visionlora.adapters.methods.lora_fa.LoRAFA",
    "tucker": "visionlora.adapters.methods.tucker.Tucker",
    "ia3": "visionlora.adapters.methods.ia3.IA3",
}
"""Name, as ``LoRAConfig.method`` and an adapter's file have it -> class, or where it is."""


class UnknownMethodError(InputError):
    """There is no method of this name."""


def register(name: str, method: "type[Method]") -> None:
    """Have ``LoRAConfig(method=name)``, and files that say so, mean this subclass of ``adapters.methods.base.Method``.

    Raises:
        InputError: there is another method of this name.
    """
    if METHODS.setdefault(name, method) is not method:
        raise InputError(f"there is a method '{name}' already; give yours another name")


def method_of(name: str) -> "type[Method]":
    """The class of a method.

    Raises:
        InputError: there is none of this name; the line says which there are.
    """
    check_method(name)
    method = METHODS[name]
    if isinstance(method, str):
        home, _, cls = method.rpartition(".")
        loaded: type[Method] = getattr(import_module(home), cls)
        return loaded
    return method


def check_method(name: str) -> None:
    """Raise the InputError of ``method_of`` for a name that there is no method of."""
    if name not in list(METHODS):
        raise UnknownMethodError(
            f"method is {name!r}; choose from {some(METHODS, 12)}{did_you_mean(str(name), METHODS)}"
        )
