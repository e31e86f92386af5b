"""EVA: A starts at the directions in which a layer's inputs vary most, and ranks go where they explain most."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionlora.adapters.attached import active_names, description_of
from visionlora.adapters.forward import is_known, padded_input
from visionlora.adapters.layer import adapted_layers, adapters_of, methods_of
from visionlora.adapters.methods.base import rows_of
from visionlora.adapters.methods.lora import LoRA
from visionlora.adapters.paths import join
from visionlora.adapters.ranks import with_new_rank
from visionlora.adapters.report import table
from visionlora.errors import InputError


@dataclass(frozen=True)
class StartedLayer:
    """One adapted parameter: its rank before and now, and how much of its inputs' size the directions hold (0 to 1)."""

    name: str
    before: int
    rank: int
    explained: float | None


@dataclass(frozen=True)
class Started:
    """What ``start_from_data`` did; ``print`` shows a table. ``explained`` is None where no input was seen."""

    layers: list[StartedLayer]

    def __str__(self) -> str:
        rows = []
        for each in self.layers:
            share = "" if each.explained is None else f"{100 * each.explained:.1f}%"
            rows.append((each.name, str(each.before), str(each.rank), share))
        left = sum(each.explained is None for each in self.layers)
        tail = f"\n{left} layers saw no input of their own and start as before" if left else ""
        return table(("layer", "rank before", "rank", "of its inputs"), rows) + tail


def start_from_data(model: nn.Module, loader: Iterable[Any], name: str = "default", rho: float = 2.0) -> Started:
    """Start a new LoRA adapter from the activations of a few batches (EVA, Paischer et al. 2024, arXiv:2410.07170).

    The rows of A become the right singular vectors of a layer's inputs (of a convolution's, its patches), which are
    found from their second moments: exact for any number of batches. The sum of the ranks stays, but they go to the
    directions that explain most, at least 1 and at most ``rho`` times what a layer had; alpha follows, so that the
    scale of each update stays. B is zero, so the model stays the base, bit for bit. Transposed convolutions, and layers
    whose module is not called itself, start as before.

    Args:
        model: with the adapter, untrained and alone active; make an optimizer afterwards, for factors are new.
        loader: a few batches: what the model takes, or a list or tuple that begins with it; labels are not used.
        name: of the adapter.
        rho: how much a rank may grow, at least 1.

    Returns:
        the ranks and what they explain.

    Raises:
        InputError: no such adapter, not alone active, not LoRA, or trained already; ``rho`` is below 1, the loader is
            empty, or an input is not finite. The model is then unchanged.
    """
    description_of(model, name)
    if active_names(model) != [name]:
        raise InputError(f"active are {active_names(model)}; activate '{name}' alone to start it from data")
    if not rho >= 1 or math.isinf(rho):
        raise InputError(f"rho is {rho!r}; give a number of at least 1")
    methods: dict[tuple[str, str], LoRA] = {}
    layers = dict(adapted_layers(model))
    for path, layer in layers.items():
        for parameter, method in methods_of(layer, name).items():
            if not isinstance(method, LoRA) or method.subtracts:
                raise InputError(f"'{path}' has a {type(method).__name__} that does not start at random; attach a LoRA")
            if method.lora_B.any():
                raise InputError(f"'{name}' has been trained already; start a new adapter from data")
            methods[path, parameter] = method
    moments = _moments(model, loader, {key: layers[key[0]] for key in methods})
    found = {key: _directions(key[0], moment) for key, moment in moments.items()}
    shares_of = {key: shares for key, (shares, _) in found.items()}
    limits = {key: _limit(layers[key[0]], key[1], methods[key], rho) for key in found}
    ranks = _redistributed({key: methods[key].rank for key in found}, shares_of, limits)
    started = []
    for (path, parameter), method in methods.items():
        shown = join(path, parameter) if parameter != "weight" else path
        if (path, parameter) not in found:
            started.append(StartedLayer(shown, method.rank, method.rank, None))
            continue
        shares, vectors = found[path, parameter]
        rank = ranks[path, parameter]
        A = with_new_rank(layers[path], name, parameter, rank).lora_A
        with torch.no_grad():
            A.copy_(vectors[:rank].view(A.shape))
        started.append(StartedLayer(shown, method.rank, rank, float(shares[:rank].sum())))
    for path in {path for path, _ in found}:
        adapters_of(layers[path]).activate(adapters_of(layers[path]).active)
    return Started(started)


def _moments(
    model: nn.Module, loader: Iterable[Any], layers: dict[tuple[str, str], nn.Module]
) -> dict[tuple[str, str], Tensor]:
    """Second moments of the inputs of each layer that saw some, (d, d), d entries of a row of A."""
    moments: dict[tuple[str, str], Tensor] = {}
    batches = 0

    def add(key: tuple[str, str], rows: Tensor) -> None:
        rows = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
        moment = rows.t() @ rows
        moments[key] = moments[key] + moment if key in moments else moment

    device = next(iter(layers.values()))._parameters.values()
    where = next(tensor.device for tensor in device if tensor is not None)
    with _in_eval(model), _watched(layers, add), torch.no_grad():
        for batch in loader:
            taken = batch[0] if isinstance(batch, list | tuple) else batch
            model(taken.to(where) if isinstance(taken, Tensor) else taken)
            batches += 1
    if not batches:
        raise InputError("the loader is empty; nothing was started")
    return moments


@contextmanager
def _watched(
    layers: dict[tuple[str, str], nn.Module], add: Callable[[tuple[str, str], Tensor], None]
) -> Iterator[None]:
    handles = []
    for (path, parameter), layer in layers.items():
        if parameter == "weight" and is_known(type(layer)):

            def note(module: Any, inputs: tuple[Any, ...], path: str = path) -> None:
                for rows in _rows_of(module, inputs[0]):
                    add((path, "weight"), rows)

            handles.append(layer.register_forward_pre_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows_of(layer: Any, x: Tensor) -> Iterator[Tensor]:
    """A layer's inputs as the rows that A is multiplied with, (many, d); an image at a time."""
    if x.dim() == 2 or layer._parameters["weight"].dim() == 2:
        yield x.reshape(-1, x.shape[-1])
        return
    padded, geometry = padded_input(layer, x)
    channels, kernel = padded.shape[1] // geometry.groups, layer.kernel_size
    entries = channels * math.prod(kernel)
    pick = torch.eye(entries, dtype=x.dtype, device=x.device).view(entries, channels, *kernel)
    function = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
    for image in padded:
        groups = image.view(geometry.groups, channels, *image.shape[1:])
        patches = function(groups, pick, None, geometry.stride, geometry.padding, geometry.dilation)  # (groups, d, ...)
        yield patches.flatten(2).transpose(1, 2).reshape(-1, entries)


def _directions(path: str, moment: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the inputs' size, falling, (d,), and the directions that hold them, as rows (d, d)."""
    if not torch.isfinite(moment).all():
        raise InputError(f"the inputs of '{path}' are not finite; nothing was started")
    sizes, vectors = torch.linalg.eigh(moment.double())
    sizes = sizes.flip(0).clamp(min=0)
    return sizes / sizes.sum().clamp(min=torch.finfo(sizes.dtype).tiny), vectors.flip(1).t()


def _limit(layer: nn.Module, parameter: str, method: LoRA, rho: float) -> int:
    """The rank that a layer may have at most."""
    weight = layer._parameters[parameter]
    assert weight is not None
    own = rows_of(weight, method.rows)
    return min(type(method).largest_rank(own, int(rho * method.rank)), own[0].numel())


def _redistributed(
    ranks: dict[tuple[str, str], int], shares: dict[tuple[str, str], Tensor], limits: dict[tuple[str, str], int]
) -> dict[tuple[str, str], int]:
    """As many directions as there were, those that explain most of their own layer first (section 3.2)."""
    candidates = []
    for key in ranks:
        candidates += [(-float(share), key) for share in shares[key][1 : limits[key]]]
    spread = dict.fromkeys(ranks, 1)
    for _, key in sorted(candidates)[: sum(ranks.values()) - len(ranks)]:
        spread[key] += 1
    return spread


@contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
