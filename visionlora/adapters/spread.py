"""Ranks for each layer by how much the loss can fall there, within a number of bytes."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters import norm
from visionlora.adapters.attached import active_names, description_of
from visionlora.adapters.budget import bytes_of, shown_bytes
from visionlora.adapters.layer import adapted_layers, methods_of
from visionlora.adapters.methods.base import Method, exact, rows_of
from visionlora.adapters.methods.lora import LoRA
from visionlora.adapters.model import activate, detach, install
from visionlora.adapters.ranks import with_new_rank
from visionlora.adapters.report import methods_bytes, table, unfrozen_bytes
from visionlora.adapters.targets import Target
from visionlora.errors import InputError

_PROBE = "visionlora-sensitivity"


@dataclass(frozen=True)
class SpreadLayer:
    """One adapted layer: its rank before and now, its gradient's share of all, and of that what its rank can follow
    (both 0 to 1).
    """

    name: str
    before: int
    rank: int
    share: float
    reached: float


@dataclass(frozen=True)
class Spread:
    """What ``spread_ranks`` did; ``print`` shows a table."""

    layers: list[SpreadLayer]
    file_bytes: int

    def __str__(self) -> str:
        rows = [
            (each.name, str(each.before), str(each.rank), f"{100 * each.share:.1f}%", f"{100 * each.reached:.0f}%")
            for each in self.layers
        ]
        columns = ("layer", "rank before", "rank", "of the gradient", "reached")
        return f"{table(columns, rows)}\n{shown_bytes(self.file_bytes)} to save"


def spread_ranks(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    name: str = "default",
    budget: str | None = None,
) -> Spread:
    """Give each layer of a new adapter the rank that its part of the loss's gradient is worth, in an adapter of a size.

    A step along the best matrix of rank r lets the loss fall, to first order, by the sum of the r largest squared
    singular values of the gradient of the layer's whole weight (as Wang et al. 2024, arXiv:2407.05000, use it to start
    LoRA's factors). So rank after rank goes to the layer where the next of these is largest for the bytes that a rank
    costs there. Every layer has at least 1, and none more than would make the adapter larger than the layer. Each
    update's scale stays.

    Gradients of all adapted weights are held at once, as in full fine-tuning.

    Args:
        model: with the adapter, untrained and alone active, in the mode in which it trains; make an optimizer
            afterwards, for the factors are new.
        batches: a few; what ``loss`` takes.
        loss: of the model on one of them, a scalar.
        name: of the adapter.
        budget: the size of the adapter's numbers, as ``LoRAConfig`` has it; by default the size that it has.

    Returns:
        the ranks, and why.

    Raises:
        InputError: no such adapter, not alone active, not LoRA, or trained already; the budget is smaller than rank 1
            everywhere; there is no batch, or no gradient, or none that is
            finite. The model is then unchanged.
    """
    config, unfrozen = description_of(model, name)
    if active_names(model) != [name]:
        raise InputError(f"active are {active_names(model)}; activate '{name}' alone to spread its ranks")
    layers = {path: layer for path, layer in adapted_layers(model) if methods_of(layer, name)}
    methods = {path: _lora_methods(path, layer, name) for path, layer in layers.items()}
    if any(method.lora_B.any() and not method.subtracts for own in methods.values() for method in own.values()):
        raise InputError(f"'{name}' has been trained already; spread the ranks of a new adapter")
    own = [method for by_parameter in methods.values() for method in by_parameter.values()]
    now = methods_bytes(own)
    fixed = unfrozen_bytes(model, unfrozen)
    allowed = now if budget is None else bytes_of(budget) - fixed
    costs = {path: _Cost.of(layers[path], methods[path]) for path in layers}
    if (least := sum(cost.at(1) for cost in costs.values())) > allowed:
        raise InputError(f"budget is {budget!r}, and rank 1 everywhere takes {shown_bytes(fixed + least)}; give more")
    energies = {
        path: _energies(path, changes) for path, changes in _gradients(model, batches, loss, name, layers).items()
    }
    whole = sum(float(energy.sum()) for energy in energies.values())
    if not whole:
        raise InputError("no gradient reaches an adapted layer; is the head at zero? train it for some steps before")
    ranks = _allotted(energies, costs, allowed)
    spread = []
    for path, layer in layers.items():
        energy, rank = energies[path], ranks[path]
        before = max(method.rank for method in methods[path].values())
        for parameter in methods[path]:
            with_new_rank(layer, name, parameter, rank, config.init)
        share, reached = float(energy.sum()) / whole, float(energy[:rank].sum() / energy.sum().clamp(min=1e-300))
        spread.append(SpreadLayer(path, before, rank, share, reached))
    activate(model, name)
    return Spread(spread, fixed + sum(costs[path].at(rank) for path, rank in ranks.items()))


@dataclass(frozen=True)
class _Cost:
    """Bytes of a layer's factors: ``fixed`` and as much again for each rank; the rank that it may have at most."""

    fixed: int
    each: int
    most: int

    @classmethod
    def of(cls, layer: nn.Module, methods: dict[str, LoRA]) -> "_Cost":
        fixed = each = 0
        most = []
        for parameter, method in methods.items():
            weight = layer._parameters[parameter]
            assert weight is not None
            own = rows_of(weight, method.rows)
            shape = own.to("meta")
            one, two = (methods_bytes([type(method)(shape, rank, 1.0)]) for rank in (1, 2))
            each += (two - one) * (1 + method.subtracts)
            fixed += 2 * one - two
            most.append(min(type(method).largest_rank(own, min(len(own), own[0].numel())), *own.flatten(1).shape))
        return cls(fixed, each, min(most))

    def at(self, rank: int) -> int:
        return self.fixed + rank * self.each


def _lora_methods(path: str, layer: nn.Module, name: str) -> dict[str, LoRA]:
    found: dict[str, LoRA] = {}
    for parameter, method in methods_of(layer, name).items():
        if not isinstance(method, LoRA):
            raise InputError(f"'{path}' has a {type(method).__name__}, whose rank can't be spread; take method='lora'")
        found[parameter] = method
    return found


class _Change(Method):
    """A number added to each of a weight's, whose gradient is the adapted weight's own."""

    adds = True
    has_rank = False

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__(weight, rank, alpha)
        self.change = nn.Parameter(torch.zeros_like(exact(weight)))

    def adapted(self, weight: Tensor) -> Tensor:
        return weight + self.change


def _gradients(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    name: str,
    layers: dict[str, nn.Module],
) -> dict[str, list[Tensor]]:
    """Of each layer's adapted weights, summed over the batches; the model is afterwards as it was."""
    config, _ = description_of(model, name)
    targets: dict[Target, Method] = {}
    for path, layer in layers.items():
        for parameter, method in methods_of(layer, name).items():
            weight = layer._parameters[parameter]
            assert weight is not None
            target = Target(path, parameter, 1, 1.0, method.parts, method.rows)
            targets[target] = _Change.build(weight, 1, 1.0, method.parts, method.rows)
    buffers = [buffer for module in norm.measuring(model) for buffer in module.buffers(recurse=False)]
    before = [buffer.clone() for buffer in buffers]
    install(model, _PROBE, replace(config, batchnorm="frozen"), targets, [], [])
    try:
        activate(model, [name, _PROBE])
        count = 0
        for batch in batches:
            value = loss(model, batch)
            if not torch.isfinite(value):
                raise InputError(f"the loss of batch {count} is {float(value.detach())}; nothing was spread")
            value.backward()
            count += 1
        if not count:
            raise InputError("there is no batch; nothing was spread")
        found: dict[str, list[Tensor]] = {}
        for target, method in targets.items():
            assert isinstance(method, _Change)
            gradient = method.change.grad  # None where the loss does not depend on it
            found.setdefault(target.path, []).append(torch.zeros_like(method.change) if gradient is None else gradient)
        return found
    finally:
        detach(model, _PROBE)
        activate(model, name)
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


def _energies(path: str, gradients: list[Tensor]) -> Tensor:
    """Squared singular values, falling, of a layer's gradients together, (d,) float64."""
    values = []
    for gradient in gradients:
        rows = gradient.detach().flatten(1).double()
        square = rows @ rows.t() if rows.shape[0] <= rows.shape[1] else rows.t() @ rows
        if not torch.isfinite(square).all():
            raise InputError(f"the gradient of '{path}' is not finite; nothing was spread")
        values.append(torch.linalg.eigvalsh(square).flip(0).clamp(min=0).cpu())
    length = max(len(each) for each in values)
    return torch.stack([nn.functional.pad(each, (0, length - len(each))) for each in values]).sum(0)


def _allotted(energies: dict[str, Tensor], costs: dict[str, _Cost], allowed: int) -> dict[str, int]:
    """Rank by rank to where it is worth most for its bytes, until no rank fits any more."""
    ranks = dict.fromkeys(energies, 1)
    left = allowed - sum(cost.at(1) for cost in costs.values())
    waiting = [(-float(energies[path][1]) / costs[path].each, path) for path in ranks if costs[path].most > 1]
    heapq.heapify(waiting)
    while waiting:
        _, path = heapq.heappop(waiting)
        cost = costs[path]
        if cost.each > left:
            continue
        left -= cost.each
        ranks[path] += 1
        if ranks[path] < min(cost.most, len(energies[path])):
            heapq.heappush(waiting, (-float(energies[path][ranks[path]]) / cost.each, path))
    return ranks
