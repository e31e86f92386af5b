"""Several adapters as one: exactly, at a given rank, or with what contradicts itself taken out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from visionlora.adapters import state
from visionlora.adapters.attached import check_known, check_name, description_of, weights_of
from visionlora.adapters.config import BATCHNORM_MODES, exactly
from visionlora.adapters.layer import adapted_layers, adapted_parameters, methods_of
from visionlora.adapters.methods.base import Factors, Method
from visionlora.adapters.methods.lora import LoRA
from visionlora.adapters.model import install
from visionlora.adapters.paths import join
from visionlora.adapters.report import table
from visionlora.adapters.targets import Target
from visionlora.errors import InputError, did_you_mean

How = Literal["sum", "ties", "dare"]
_WAYS: tuple[How, ...] = ("sum", "ties", "dare")


@dataclass(frozen=True)
class CombinedLayer:
    """One layer of a combined adapter.

    Attributes:
        norm, lost: Frobenius norms of the update that was asked for, and of what its rank leaves out.
    """

    name: str
    rank: int
    norm: float
    lost: float


@dataclass(frozen=True)
class Combination:
    """What ``combine`` made; ``print`` shows a table."""

    name: str
    layers: list[CombinedLayer]

    @property
    def error(self) -> float:
        """Norm of what the ranks leave out of all updates, relative to their norm; 0 for a sum that is exact."""
        norm = math.hypot(*(layer.norm for layer in self.layers))
        return math.hypot(*(layer.lost for layer in self.layers)) / norm if norm else 0.0

    def __str__(self) -> str:
        rows = [
            (layer.name, str(layer.rank), f"{100 * layer.lost / layer.norm if layer.norm else 0:.2f}%")
            for layer in self.layers
        ]
        summary = f"adapter '{self.name}': {100 * self.error:.2f}% of the updates left out by the rank"
        return f"{table(('layer', 'rank', 'left out'), rows)}\n{summary}"


def combine(
    model: nn.Module,
    names: Sequence[str] | Mapping[str, float],
    name: str,
    rank: int | None = None,
    how: How = "sum",
    density: float = 0.5,
    seed: int = 0,
    heads: str | None = None,
) -> Combination:
    """Make one LoRA adapter of several that add, and make it the active one; save it like any other.

    Args:
        model: with the adapters.
        names: of the adapters, with weights for their updates if it is a mapping.
        name: of the new one.
        rank: of each layer, the best approximation of this rank (SVD); by default the sum of the ranks, which for a
            sum of adapters that have factors is exact.
        how: ``"sum"``; ``"ties"`` keeps the largest entries of each update, and of these what has the sign of the
            majority, and takes its mean (Yadav et al. 2023, arXiv:2306.01708, layer by layer); ``"dare"`` drops
            entries at random and scales up the rest before it adds (Yu et al. 2023, arXiv:2311.03099).
        density: share of the entries that ``"ties"`` and ``"dare"`` keep, above 0 and at most 1.
        seed: of ``"dare"``.
        heads: the adapter whose unfrozen modules and BatchNorm go along where several have their own of one.

    Returns:
        the ranks, and what they leave out.

    Raises:
        InputError: no such adapter, the name is taken, an adapter doesn't add or has no factors to stack, a number is
            out of its range, or two have their own unfrozen module; the model is then unchanged.
    """
    weights = weights_of(names)
    check_name(model, name)
    check_known(model, weights)
    _check(weights, rank, how, density, heads)
    owners = _owners(model, list(weights), heads)
    generator = torch.Generator().manual_seed(seed)
    layers: list[CombinedLayer] = []
    methods: dict[Target, Method] = {}
    with torch.no_grad():
        for path, layer in adapted_layers(model):
            for parameter in adapted_parameters(layer):
                acting = [(each, weights[each], methods_of(layer, each).get(parameter)) for each in weights]
                present = [(each, weight, method) for each, weight, method in acting if method is not None]
                if present:
                    frozen = layer._parameters[parameter]
                    assert frozen is not None
                    update = _Update(path, frozen, present)
                    A, B, lost = update.combined(rank, how, density, generator)
                    target, method = update.as_lora(parameter, A, B)
                    methods[target] = method
                    shown = join(path, parameter) if parameter != "weight" else path
                    # What is left out of an SVD is at right angles to what is not.
                    norm = math.hypot(float(method.update_norm(frozen)), lost)
                    layers.append(CombinedLayer(shown, len(A), norm, lost))
    unfrozen = list(dict.fromkeys(root for each in weights for root in description_of(model, each)[1]))
    modes = [description_of(model, each)[0].batchnorm for each in weights]
    config = exactly(
        "lora",
        {target.path: target.rank for target in methods},
        {target.path: target.alpha for target in methods},
        unfrozen,
        max(modes, key=BATCHNORM_MODES.index),
    )
    install(model, name, config, methods, unfrozen, [])
    _take_over(name, owners)
    return Combination(name, layers)


class _Update:
    """The updates of one parameter by several adapters, in the rows that any of them adapts."""

    def __init__(self, path: str, weight: Tensor, present: list[tuple[str, float, Method]]) -> None:
        self.path, self.weight, self.present = path, weight, present
        first = present[0][2]
        # Equal parts stay parts; else the whole is taken, with zeros in the rows that one leaves alone.
        self.parts = first.parts if all(method.parts == first.parts for _, _, method in present) else ""
        self.rows = first.rows if self.parts else None
        for name, _, method in present:
            if not method.adds:
                raise InputError(f"'{name}' is a {type(method).__name__} on '{path}', which does not add; leave it out")

    def combined(
        self, rank: int | None, how: How, density: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, float]:
        """Factors A (r, ...), B (n, r) of the combined update, and the norm of what they leave out."""
        stacked = self._stacked() if how == "sum" else None
        if how == "sum" and rank is None:
            if stacked is None:
                without = [method for _, _, method in self.present if _factors(method, self.weight) is None]
                kind = type(without[0]).__name__
                raise InputError(f"'{self.path}' has a {kind}, which has no factors to stack; give a rank")
            return *stacked, 0.0
        if stacked is not None:
            return self._finite(*_truncated(*stacked, rank or 0))
        dense = [(weight, self._taken(method.whole_update(self.weight))) for _, weight, method in self.present]
        if how == "ties":
            update = _ties(dense, density)
        else:
            keep = density if how == "dare" else 1.0
            update = torch.stack([weight * _dropped(each, keep, generator) for weight, each in dense]).sum(0)
        if not torch.isfinite(update).all():
            raise InputError(f"'{self.path}': its updates are not finite; nothing was combined")
        return self._svd(update, rank or sum(method.rank for _, _, method in self.present))

    def as_lora(self, parameter: str, A: Tensor, B: Tensor) -> tuple[Target, Method]:
        """The combined update as a LoRA whose scale is 1."""
        rank = len(A)
        target = Target(self.path, parameter, rank, float(rank), self.parts, self.rows)
        method = LoRA.build(self.weight, rank, float(rank), self.parts, self.rows)
        method.lora_A.copy_(A)
        method.lora_B.copy_(B)
        return target, method

    def _taken(self, tensor: Tensor) -> Tensor:
        return tensor if self.rows is None else tensor[self.rows]

    def _stacked(self) -> tuple[Tensor, Tensor] | None:
        """The factors side by side, which add up to the sum exactly; None if one has none."""
        found = []
        for _, weight, method in self.present:
            factors = _factors(method, self.weight)
            if factors is None:
                return None
            found.append((factors.A, weight * self._taken(factors.B)))
        return torch.cat([A for A, _ in found]), torch.cat([B for _, B in found], dim=1)

    def _svd(self, update: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
        left, sizes, right = torch.linalg.svd(update.flatten(1), full_matrices=False)
        rank = min(rank, len(sizes))
        root = sizes[:rank].sqrt()
        A = (root[:, None] * right[:rank]).view(rank, *update.shape[1:])
        return A, left[:, :rank] * root, float(sizes[rank:].norm())

    def _finite(self, A: Tensor, B: Tensor, lost: float) -> tuple[Tensor, Tensor, float]:
        if not math.isfinite(lost):
            raise InputError(f"'{self.path}': its updates are not finite; nothing was combined")
        return A, B, lost


def _factors(method: Method, weight: Tensor) -> Factors | None:
    with method.at_rest():
        found = method.all_factors(weight)
    return None if found is None or found.row_scale is not None else found


def _truncated(A: Tensor, B: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The best approximation of ``B @ A`` of this rank, from the factors alone: no matrix of the weight's size."""
    if not (torch.isfinite(A).all() and torch.isfinite(B).all()):
        return A, B, math.nan
    left, upper = torch.linalg.qr(B)
    right, lower = torch.linalg.qr(A.flatten(1).t())
    inner_left, sizes, inner_right = torch.linalg.svd(upper @ lower.t())
    rank = min(rank, len(sizes))
    root = sizes[:rank].sqrt()
    short = (root[:, None] * (inner_right[:rank] @ right.t())).view(rank, *A.shape[1:])
    return short, (left @ inner_left[:, :rank]) * root, float(sizes[rank:].norm())


def _ties(updates: list[tuple[float, Tensor]], density: float) -> Tensor:
    trimmed = torch.stack([weight * _largest(update, density) for weight, update in updates])
    agreeing = trimmed.sign() == trimmed.sum(0).sign()
    kept = torch.where(agreeing, trimmed, 0)
    return kept.sum(0) / (kept != 0).sum(0).clamp(min=1)


def _largest(update: Tensor, density: float) -> Tensor:
    count = max(1, round(density * update.numel()))
    kept = torch.zeros(update.numel(), dtype=update.dtype, device=update.device)
    at = update.flatten().abs().topk(count).indices
    kept[at] = update.flatten()[at]
    return kept.view(update.shape)


def _dropped(update: Tensor, density: float, generator: torch.Generator) -> Tensor:
    if density == 1:
        return update
    kept = torch.rand(update.shape, generator=generator) < density
    return torch.where(kept.to(update.device), update / density, 0)


def _check(weights: Mapping[str, float], rank: int | None, how: str, density: float, heads: str | None) -> None:
    if not weights:
        raise InputError("nothing to combine: give the names of adapters")
    if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool) or rank < 1):
        raise InputError(f"rank is {rank!r}; give a whole number of at least 1, or None")
    if how not in _WAYS:
        raise InputError(f"no way to combine '{how}'{did_you_mean(how, _WAYS)}; there are {', '.join(_WAYS)}")
    if not 0 < density <= 1:
        raise InputError(f"density is {density!r}; give a share above 0 and at most 1")
    if heads is not None and heads not in weights:
        raise InputError(f"heads is '{heads}', which is none of the adapters {list(weights)}")


def _owners(model: nn.Module, names: list[str], heads: str | None) -> dict[nn.Module, str]:
    """Module -> the adapter whose values of its unfrozen tensors go along."""
    found = {}
    for path, module, record in state.owned_modules(model):
        owners = [name for name in names if name in record.names]
        if len(owners) > 1 and heads not in owners:
            where = f"'{path}'" if path else "tensors of the model itself"
            raise InputError(f"adapters {owners} have each their own {where}; say whose to take: heads='{owners[0]}'")
        if owners:
            found[module] = heads if heads is not None and heads in owners else owners[0]
    return found


@torch.no_grad()
def _take_over(name: str, owners: dict[nn.Module, str]) -> None:
    for module, owner in owners.items():
        theirs = state.values_of(module, owner)
        for tensor, value in state.values_of(module, name).items():
            if tensor in theirs:
                value.copy_(theirs[tensor])
