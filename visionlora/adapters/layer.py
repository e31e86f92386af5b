"""Attach adapters to one layer, and detach them.

The layer keeps its place, its parameter names and its frozen parameters. Its attribute ``weight``
(``in_proj_weight`` ... of ``nn.MultiheadAttention``) becomes a property that answers the adapted weight.
Where the class is known exactly its forward becomes a fused one; elsewhere it stays.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from visionlora.adapters.forward import fused_forward
from visionlora.adapters.guard import guarded, refuse_writes, shard_of
from visionlora.adapters.methods.base import Factors, Method, constant
from visionlora.adapters.paths import named_modules
from visionlora.adapters.swap import args_of, is_swapped, swap, unswap
from visionlora.ops.autocast import is_autocast

LayerRoute = Literal["auto", "factored", "dense", "reference"]
Memory = Literal["fast", "low"]
LOW_PRECISION = (torch.bfloat16, torch.float16)
"""Precisions of a stored weight in which a small update is rounded away."""

ROUTES: tuple[LayerRoute, ...] = ("auto", "factored", "dense", "reference")
MEMORY: tuple[Memory, ...] = ("fast", "low")


class Weighted:
    """A method that adds, with a weight for its update.

    The weight is a tensor, so that torch.compile doesn't make a program for each.
    """

    adds = True

    def __init__(self, method: Method, weight: float) -> None:
        self.method, self.weight = method, constant(weight)

    def __call__(self, weight: Tensor) -> Tensor:
        return self.method.plus(weight, self.weight)

    def all_factors(self, weight: Tensor) -> Factors | None:
        """As of the method, with the weight."""
        found = self.method.all_factors(weight)
        return None if found is None else found._replace(B=self.weight * found.B)


Acting = Method | Weighted
"""What an active adapter does to a parameter."""


class LayerAdapters(nn.ModuleDict):
    """A layer's adapters: name -> parameter -> method, and which of the names are active.

    Attributes:
        active: names, in the order of application, with the weights that their updates have.
        live: parameter -> what the active ones do to it, in the order of application; None where that is to be looked
            up. It is found without a name, so that torch.compile sees the same program whichever is active.
        route: how gradients reach the factors (see ``set_route``).
        memory: whether an activation's output is kept or made again (see ``set_memory``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.active: dict[str, float] = {}
        self.live: dict[str, tuple[Acting, ...]] | None = {}
        self.route: LayerRoute = "auto"
        self.memory: Memory = "fast"

    def activate(self, weights: Mapping[str, float]) -> None:
        """Apply those of the named adapters that this layer holds, in this order, with these weights."""
        self.active = {name: weight for name, weight in weights.items() if name in self}
        self.live = self._acting()

    def _acting(self) -> dict[str, tuple[Acting, ...]]:
        found: dict[str, list[Acting]] = {}
        for name, weight in self.active.items():
            methods: Any = self[name]
            for parameter, method in methods.items():
                found.setdefault(parameter, []).append(method if weight == 1 else Weighted(method, weight))
        # What adds the same to every weight comes last, so that the order in which names are given doesn't matter.
        return {parameter: tuple(sorted(acting, key=_adds)) for parameter, acting in found.items()}

    def _replicate_for_data_parallel(self) -> Self:
        replica = super()._replicate_for_data_parallel()
        replica.live = None  # Its methods are on another device.
        return replica

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As any module does; but ``model.to(torch.bfloat16)`` leaves factors exact, or small updates would be lost."""
        return super()._apply(partial(_kept_exact, fn), recurse)


def add_adapter(layer: nn.Module, name: str, methods: dict[str, Method]) -> None:
    """Give ``layer`` the adapter ``name``, inactive: a method for each of its parameters' names."""
    if not is_adapted(layer):
        layer.add_module("adapters", LayerAdapters())
        swap(layer, _members, tuple(methods))
    elif missing := [parameter for parameter in methods if parameter not in adapted_parameters(layer)]:
        parameters = (*adapted_parameters(layer), *missing)
        unswap(layer)
        swap(layer, _members, parameters)
    adapters_of(layer)[name] = nn.ModuleDict(methods)


def remove_adapter(layer: nn.Module, name: str) -> None:
    """Take the adapter ``name`` off ``layer``; with the last one gone, the layer has its plain class."""
    adapters = adapters_of(layer)
    if name in adapters:
        del adapters[name]
        adapters.activate(adapters.active)
    if not len(adapters):
        unswap(layer)
        del layer._modules["adapters"]


def is_adapted(layer: nn.Module) -> bool:
    """Whether the layer holds adapters."""
    return is_swapped(layer, _members)


def adapters_of(layer: nn.Module) -> LayerAdapters:
    """The adapters of an adapted layer."""
    adapters = layer._modules["adapters"]
    assert isinstance(adapters, LayerAdapters)
    return adapters


def adapted_parameters(layer: nn.Module) -> tuple[str, ...]:
    """Names of the parameters of an adapted layer that are read through its adapters."""
    parameters: tuple[str, ...]
    (parameters,) = args_of(layer)
    return parameters


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer of the model that holds adapters, with its name."""
    return ((path, layer) for path, layer in named_modules(model) if is_adapted(layer))


def methods_of(layer: nn.Module, adapter: str) -> dict[str, Method]:
    """What the adapter does to each of an adapted layer's parameters, by their names."""
    adapters: Any = adapters_of(layer)
    # No dict(...), which torch.compile doesn't follow.
    return {name: method for name, method in adapters[adapter].items()} if adapter in adapters else {}  # noqa: C416


def active_methods(layer: nn.Module, parameter: str) -> "tuple[Acting, ...]":
    """What the active adapters do to the parameter, in the order of application."""
    adapters = adapters_of(layer)
    live = adapters.live
    if live is None:
        live = adapters._acting()
    return live.get(parameter, ())


def effective_weight(layer: nn.Module, parameter: str) -> Tensor:
    """The frozen parameter with the active adapters applied in turn, (same shape and dtype)."""
    frozen = layer._parameters[parameter]
    assert frozen is not None
    weight: Tensor = frozen
    for method in active_methods(layer, parameter):
        weight = method(weight)
    return weight


def write_merged(layer: nn.Module) -> None:
    """Write the adapted weights into the frozen parameters and take all adapters off."""
    adapters_of(layer).eval()
    with torch.no_grad():
        merged = {parameter: effective_weight(layer, parameter) for parameter in adapted_parameters(layer)}
        for parameter, weight in merged.items():
            frozen = layer._parameters[parameter]
            assert frozen is not None
            frozen.copy_(weight)
    for name in list(adapters_of(layer)):
        remove_adapter(layer, name)


def trained_factors(layer: nn.Module, x: Tensor) -> tuple[Factors, Any, bool] | None:
    """The active adapters' factors, stacked; the route of their gradients; whether to make an input again.

    None where the fused operation has nothing to give: no gradient is asked for, no adapter is active, one of them
    has no factors, the route is ``"reference"``, or the input is none that a plain layer computes with a frozen
    weight. The route is ``"branch"``, with gradients or without, for a weight of too few bits to hold an update.
    """
    adapters = adapters_of(layer)
    weight = layer._parameters["weight"]
    if adapters.route == "reference" or weight is None or not _is_plain(x, weight):
        return None
    route = "branch" if weight.dtype in LOW_PRECISION else adapters.route
    if route != "branch" and not torch.is_grad_enabled():
        return None
    stacked = _stacked([method.all_factors(weight) for method in active_methods(layer, "weight")])
    return None if stacked is None else (stacked, route, adapters.memory == "low")


def _stacked(found: list[Factors | None]) -> Factors | None:
    """The factors of several methods that add, as one."""
    factors = [each for each in found if each is not None]
    if not factors or len(factors) < len(found):
        return None
    if len(factors) == 1:
        return factors[0]
    if any(each.row_scale is not None for each in factors):
        return None  # What the others add is not to be scaled.
    return Factors(torch.cat([each.A for each in factors]), torch.cat([each.B for each in factors], dim=1))


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether x is a batch that the layer computes with a frozen weight, outside functorch and torch.jit.trace."""
    if weight.requires_grad or type(x) not in (Tensor, nn.Parameter):
        return False
    if torch._C._are_functorch_transforms_active() or torch.jit.is_tracing():
        return False
    is_cast = is_autocast(x) and torch.float64 not in (x.dtype, weight.dtype)
    return (
        (is_cast or x.dtype == weight.dtype)
        and x.is_floating_point()
        and (weight.dim() == 2 or x.dim() == weight.dim())
    )


def _adds(acting: Acting) -> bool:
    return acting.adds


def _members(base: type, parameters: tuple[str, ...]) -> dict[str, Any]:
    members = refuse_writes(base, parameters)
    members |= {parameter: _weight_property(parameter) for parameter in parameters}
    if parameters == ("weight",) and (forward := fused_forward(base, trained_factors)):
        members["forward"] = forward
    return members


def _weight_property(parameter: str) -> property:
    def get(self: nn.Module) -> Tensor:
        if (shard := shard_of(self, parameter)) is not None:
            return shard  # for FSDP2, which looks for it there
        try:
            return guarded(effective_weight(self, parameter))
        except AttributeError as error:
            # nn.Module.__getattr__ would take an AttributeError as "not here" and answer the frozen weight.
            raise RuntimeError(f"{parameter} of an adapted {type(self).__name__}: {error}") from error

    return property(get)


def _kept_exact(move: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """The tensor where ``move`` puts it, without what it takes away in precision."""
    moved = move(tensor)
    return tensor.to(moved.device) if moved.dtype in LOW_PRECISION else moved
