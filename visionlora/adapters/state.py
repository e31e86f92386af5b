"""Tensors that belong to an adapter besides its factors: unfrozen modules and BatchNorm state.

The module that holds such tensors keeps, beside the live ones, the base's own values and those of
every adapter that is not active. Values change places by swapping storage (``.data``), so parameters
keep their identity (optimizers) and graphs that were built before stay valid.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from visionlora.adapters.paths import named_modules

_KEY = "_visionlora_owned"
BASE = ""


@dataclass
class Owned:
    """The owned tensors of one module.

    Attributes:
        live: whose values the module shows: an adapter's name, or ``BASE``.
        values: owner -> tensor name -> value, for every owner that is not live; the base's are those that the live
            adapter's have taken the place of.
        names: adapter's name -> the tensors that it owns.
        trains: adapter's name -> those of them that train; the others follow the images.
    """

    live: str = BASE
    values: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    trains: dict[str, list[str]] = field(default_factory=dict)


def own(module: nn.Module, adapter: str, names: list[str], trains: list[str]) -> None:
    """Let ``adapter`` own these of the module's direct tensors, starting from the base's values; not live yet."""
    base = base_tensors(module)
    owned = vars(module).setdefault(_KEY, Owned())
    owned.values[adapter] = {name: base[name].detach().clone() for name in names}
    owned.names[adapter], owned.trains[adapter] = names, trains


def own_more(module: nn.Module, adapter: str, names: list[str]) -> None:
    """Let ``adapter`` own these tensors besides those that it has, starting from the base's; none of them trains."""
    owned = owned_of(module)
    if owned is None or adapter not in owned.names:
        own(module, adapter, names, [])
        return
    missing = [name for name in names if name not in owned.names[adapter]]
    # Where the adapter is live, what the module shows now is still the base's.
    keeper = BASE if owned.live == adapter else adapter
    base = base_tensors(module)
    owned.values[keeper] |= {name: base[name].detach().clone() for name in missing}
    owned.names[adapter] = [*owned.names[adapter], *missing]


def disown(module: nn.Module, adapter: str) -> None:
    """Drop the values of ``adapter``; the module shows the base's if it showed these."""
    owned = owned_of(module)
    if owned is None or adapter not in owned.names:
        return
    if owned.live == adapter:
        show(module, BASE)
    del owned.values[adapter], owned.names[adapter], owned.trains[adapter]
    if not owned.names:
        del vars(module)[_KEY]


def keep_live(module: nn.Module) -> None:
    """Make the live values the module's only ones."""
    vars(module).pop(_KEY, None)


def show(module: nn.Module, owner: str) -> None:
    """Make the values of ``owner`` (an adapter's name or ``BASE``) the live ones."""
    owned = owned_of(module)
    if owned is None or owned.live == owner:
        return
    if owned.live != BASE:
        owned.values[owned.live] = _exchange(module, owned.values.pop(BASE))
    if owner != BASE:
        owned.values[BASE] = _exchange(module, owned.values.pop(owner))
    # timm's LeViT, TinyViT and EfficientFormer keep what they made of a parameter between eval forwards.
    vars(module).get("attention_bias_cache", {}).clear()
    owned.live = owner


def _exchange(module: nn.Module, incoming: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors, outgoing = direct_tensors(module), {}
    for name, value in incoming.items():
        tensor = tensors[name]
        outgoing[name] = tensor.data
        tensor.data = value.to(device=tensor.device, dtype=tensor.dtype)
    return outgoing


def owned_of(module: nn.Module) -> Owned | None:
    """The module's record, or None if no adapter owns its tensors."""
    owned: Owned | None = vars(module).get(_KEY)
    return owned


def owned_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, Owned]]:
    """Every module with owned tensors, its name and its record."""
    for path, module in named_modules(model):
        if (owned := owned_of(module)) is not None:
            yield path, module, owned


def direct_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's own parameters and buffers, without its children's."""
    tensors: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def base_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The base's values of the module's own parameters and buffers."""
    owned = owned_of(module)
    return direct_tensors(module) | ({} if owned is None else owned.values.get(BASE, {}))


def values_of(module: nn.Module, adapter: str) -> dict[str, Tensor]:
    """The values that ``adapter`` owns on this module."""
    owned = owned_of(module)
    if owned is None or adapter not in owned.names:
        return {}
    if owned.live != adapter:
        return owned.values[adapter]
    live = direct_tensors(module)
    return {name: live[name] for name in owned.names[adapter]}
