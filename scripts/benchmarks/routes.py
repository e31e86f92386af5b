"""What each layer's gradients cost by either route, beside the frozen layer, and which one the cost model takes."""

import math
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import timm
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from timm.layers import Conv2dSame
from torch import Tensor, nn

from visionlora.ops.conv import factor_gradients as conv_gradients
from visionlora.ops.convolution import convolve, input_gradient
from visionlora.ops.cost import Costs, conv_route, costs
from visionlora.ops.geometry import Geometry
from visionlora.ops.linear import factor_gradients as linear_gradients
from visionlora.ops.weight import PassingWeight

COPIES = 4
"""Sets of tensors that a measurement goes through, so that none is found in the cache."""
REPEATS = 5


@dataclass(frozen=True)
class Shape:
    """A layer's input without the batch, weight, and for convolutions the geometry."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    geometry: Geometry | None


class Tensors(NamedTuple):
    """A layer's input, the gradient of its output, its weight and factors."""

    x: Tensor
    g: Tensor
    weight: Tensor
    A: Tensor
    B: Tensor


@dataclass(frozen=True)
class Timed:
    """Milliseconds of both routes in a kind of layer, which a model has so many of."""

    shape: Shape
    layers: int
    rank: int
    factored: float
    dense: float

    def as_taken(self, by: Costs) -> float:
        """Of the route that these costs say."""
        groups = self.shape.geometry.groups if self.shape.geometry else 1
        route = conv_route(self.shape.weight[0], (self.rank, *self.shape.weight[1:]), groups, by=by)
        return self.factored if route == "factored" else self.dense


Way = Callable[[Tensors], object]
MEASURED = ("forward", "input", "weight", "factored", "dense")
FITTED = ("resnet50", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "vit_small_patch16_224", "convnext_tiny")
TRIED = [Costs(read, vector) for read in (0, 5, 10, 15, 20, 30, 40, 60, 80, 120) for vector in (1, 8, 16, 32)]


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--model", default="resnet50", help="timm's name (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="(default: %(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument(
        "--fit", nargs="*", metavar="MODEL", help="print this processor's row of ops/cost.py, from these models' layers"
    )


def run(arguments: Namespace) -> int:
    """Measure each kind of layer of the model once, and print the table with totals over all layers."""
    console = Console(width=None if Console().is_terminal else 120)
    if arguments.fit is not None:
        return _fit(arguments, console)
    counts = layer_shapes(arguments.model, arguments.size)
    table = Table("input", "weight", "layers", "forward", "input grad", "weight", "factored", "dense", "taken")
    totals: Counter[str] = Counter()
    for shape, layers in track(counts.items(), console=console, transient=True, description=arguments.model):
        costs = measure(shape, arguments.batch, arguments.rank, arguments.channels_last)
        groups = shape.geometry.groups if shape.geometry else 1
        taken = conv_route(shape.weight[0], (arguments.rank, *shape.weight[1:]), groups)
        table.add_row(
            "x".join(map(str, shape.x)),
            "x".join(map(str, shape.weight)),
            str(layers),
            *(f"{costs[name]:.2f}" for name in MEASURED),
            taken,
        )
        costs |= {"taken": costs[taken], "best": min(costs["factored"], costs["dense"])}
        totals.update({name: layers * cost for name, cost in costs.items()})
    console.print(table)
    frozen = totals["forward"] + totals["input"]
    console.print(
        f"{arguments.model}, rank {arguments.rank}, batch {arguments.batch}, ms over all layers: frozen {frozen:.0f}, "
        f"adapted weights {totals['weight']:.0f}, factors' gradients factored {totals['factored']:.0f}, dense "
        f"{totals['dense']:.0f}, as taken {totals['taken']:.0f}, at best {totals['best']:.0f}"
    )
    return 0


def _fit(arguments: Namespace, console: Console) -> int:
    """The costs that would have taken the quickest way over all layers of the models, in both memory formats."""
    timed: list[Timed] = []
    for model in arguments.fit or FITTED:
        counts = layer_shapes(model, arguments.size)
        formats = (False, True) if any(shape.geometry for shape in counts) else (False,)
        for shape, layers in track(counts.items(), console=console, transient=True, description=model):
            for channels_last in formats if shape.geometry else (False,):
                found = measure(shape, arguments.batch, arguments.rank, channels_last, ("factored", "dense"))
                timed.append(Timed(shape, layers, arguments.rank, found["factored"], found["dense"]))
    taken = {by: sum(each.layers * each.as_taken(by) for each in timed) for by in TRIED}
    best = sum(each.layers * min(each.factored, each.dense) for each in timed)
    quickest = min(taken, key=lambda by: taken[by])
    # Costs about as good as the ones in use are no reason to change what runs do.
    fitted = costs() if taken.get(costs(), math.inf) < 1.01 * taken[quickest] else quickest
    table = Table("read", "vector", "ms over all layers")
    for by in sorted(TRIED, key=lambda by: taken[by])[:8]:
        table.add_row(str(by.read), str(by.vector), f"{taken[by]:.1f}")
    console.print(table)
    console.print(f"in use {taken.get(costs(), math.nan):.1f} ms, each layer's own quickest {best:.1f} ms")
    console.print(f'"{torch.backends.cpu.get_cpu_capability()}": {fitted},', highlight=False)
    return 0


def layer_shapes(name: str, size: int) -> Counter[Shape]:
    """How often each kind of layer runs in a forward of the model, its head left out."""
    model = timm.create_model(name, num_classes=0).eval()
    found: Counter[Shape] = Counter()

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        geometry = None
        if isinstance(layer, nn.Conv2d):
            same = isinstance(layer, Conv2dSame)
            padding = tuple(side // 2 for side in layer.kernel_size) if same else layer.padding
            geometry = Geometry(layer.stride, padding, layer.dilation, layer.groups)
        found[Shape(tuple(inputs[0].shape[1:]), tuple(layer.weight.shape), geometry)] += 1

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(note)
    with torch.no_grad():
        model(torch.randn(1, 3, size, size))
    return found


def measure(
    shape: Shape, batch: int, rank: int, channels_last: bool, names: Sequence[str] = MEASURED
) -> dict[str, float]:
    """Milliseconds of the layer's forward, input gradient, building of its weight (twice), and both routes."""
    sets = [_tensors(shape, batch, rank, channels_last) for _ in range(COPIES)]
    geometry = shape.geometry
    if geometry is None:
        ways: dict[str, Way] = {
            "forward": lambda t: t.x @ t.weight.t(),
            "input": lambda t: t.g @ t.weight,
            "factored": lambda t: linear_gradients(t.x, t.g, t.A, t.B, None, through_rank=True),
            "dense": lambda t: linear_gradients(t.x, t.g, t.A, t.B, None, through_rank=False),
        }
    else:
        ways = {
            "forward": lambda t: convolve(t.x, t.weight, None, geometry),
            "input": lambda t: input_gradient(t.g, t.x, t.weight, geometry),
            "factored": lambda t: conv_gradients(t.x, t.g, t.A, t.B, None, geometry, "factored"),
            "dense": lambda t: conv_gradients(t.x, t.g, t.A, t.B, None, geometry, "dense"),
        }
    ways["weight"] = _build_twice
    return {name: _milliseconds(ways[name], sets) for name in names}


def _build_twice(t: Tensors) -> None:
    for _ in range(2):
        with torch.no_grad(), PassingWeight(t.weight, t.A, t.B):
            pass


def _tensors(shape: Shape, batch: int, rank: int, channels_last: bool) -> Tensors:
    x, weight = torch.randn(batch, *shape.x), torch.randn(shape.weight)
    A, B = torch.randn(rank, *shape.weight[1:]), torch.randn(shape.weight[0], rank)
    if shape.geometry is None:
        x = x.flatten(0, -2)
        return Tensors(x, torch.randn(len(x), shape.weight[0]), weight, A, B)
    if channels_last:
        x, weight = (each.contiguous(memory_format=torch.channels_last) for each in (x, weight))
    return Tensors(x, torch.randn_like(convolve(x, weight, None, shape.geometry)), weight, A, B)


def _milliseconds(way: Way, sets: list[Tensors]) -> float:
    way(sets[0])
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for tensors in sets:
            way(tensors)
        times.append(time.perf_counter() - started)
    return 1e3 * sorted(times)[REPEATS // 2] / len(sets)
