"""What each of several processes holds of a frozen base, whole and sharded, and what a step takes with either."""

import multiprocessing
import os
import statistics
import tempfile
import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import visionlora as vl
from visionlora.adapters.layer import is_adapted
from visionlora.adapters.sharding import frozen_bytes, shard
from visionlora.training.distributed import Processes

COLUMNS = (
    "model",
    "blocks",
    "whole MB",
    "kept MB",
    "at most MB",
    "step, whole ms",
    "sharded ms",
    "ratio",
    "difference",
)


@dataclass
class Measured:
    """One model's, of process 0.

    Attributes:
        blocks: that are gathered one after the other.
        whole, kept, most: bytes of frozen weights: all of them, of those what is kept, and the most in a step.
        steps: seconds of each step with the whole base, and of each with the sharded one.
        difference: the largest of the gradients' differences, relative to their size.
    """

    blocks: int
    whole: int
    kept: int
    most: int
    steps: tuple[list[float], list[float]]
    difference: float

    def row(self, name: str) -> list[str]:
        """Its cells."""
        whole, sharded = (statistics.median(times) for times in self.steps)
        sizes = [f"{size / 1e6:.1f}" for size in (self.whole, self.kept, self.most)]
        times = [f"{1000 * whole:.0f}", f"{1000 * sharded:.0f}", f"{sharded / whole:.2f}"]
        return [name, str(self.blocks), *sizes, *times, f"{self.difference:.1e}"]


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    default = ["resnet50", "vit_small_patch16_224"]
    parser.add_argument("--model", nargs="+", default=default, help="timm's names (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="on this machine's CPU (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--classes", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images of each process (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="of the images (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="of either kind, in turns (default: %(default)s)")


def run(arguments: Namespace) -> int:
    """Print a row for each model."""
    table = Table(box=None)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "model" else "right")
    for name in arguments.model:
        table.add_row(*measure(name, arguments).row(name))
    Console(width=120).print(table)
    return 0


def measure(name: str, arguments: Namespace) -> Measured:
    """What process 0 of several, which are started for it, finds."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers: Any = context.SimpleQueue()
        given = (name, arguments, Path(folder) / "store", answers)
        started = [context.Process(target=_work, args=(rank, *given)) for rank in range(arguments.processes)]
        for process in started:
            process.start()
        for process in started:
            process.join()
        if any(process.exitcode for process in started):
            raise SystemExit(f"{name}: a process ended with {[process.exitcode for process in started]}")
        found: Measured = answers.get()
        return found


def _work(rank: int, name: str, arguments: Namespace, store: Path, answers: Any) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // arguments.processes))
    dist.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=arguments.processes)
    found = _measured(name, arguments, Processes(rank, arguments.processes))
    if rank == 0:
        answers.put(found)
    dist.destroy_process_group()


def _measured(name: str, arguments: Namespace, processes: Processes) -> Measured:
    models = [_adapted(name, arguments) for _ in range(2)]
    x = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    whole = frozen_bytes(models[1])
    blocks = shard(models[1], x[:1], torch.device("cpu"))
    kept, steps = frozen_bytes(models[1]), ([], [])  # type: ignore[var-annotated]
    gradients: list[list[Tensor]] = [[], []]
    for step in range(1 + arguments.steps):
        for index, model in enumerate(models):
            seconds, gradients[index] = _step(model, x, processes)
            if step:  # the first warms up
                steps[index].append(seconds)
    pairs = list(zip(*gradients, strict=True))
    difference = max(float((mine - theirs).norm() / mine.norm().clamp(min=1e-12)) for mine, theirs in pairs)
    return Measured(len(set(map(id, blocks))), whole, kept, _most(models[1], x), steps, difference)


def _adapted(name: str, arguments: Namespace) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=arguments.classes)
    vl.attach(model, vl.LoRAConfig(rank=arguments.rank, unfreeze=[model.pretrained_cfg["classifier"]]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn(parameter.shape)
    vl.fold_batchnorm(model.train(), torch.randn(1, 3, arguments.size, arguments.size))
    return model


def _step(model: nn.Module, x: Tensor, processes: Processes) -> tuple[float, list[Tensor]]:
    """Seconds of a forward, a backward and the sum of the gradients, which are the second."""
    trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.zero_grad()
    processes.wait()
    begun = time.perf_counter()
    model(x).square().mean().backward()
    processes.sum_gradients(trains)
    seconds = time.perf_counter() - begun
    return seconds, [parameter.grad.clone() for parameter in trains if parameter.grad is not None]


def _most(model: nn.Module, x: Tensor) -> int:
    """The most bytes of frozen weights at any adapted layer's forward, and at any's backward."""
    seen: list[int] = []

    def look(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen.append(frozen_bytes(model))
        output.register_hook(lambda _gradient: seen.append(frozen_bytes(model)))

    hooks = [layer.register_forward_hook(look) for layer in model.modules() if is_adapted(layer)]
    model(x).square().mean().backward()
    for hook in hooks:
        hook.remove()
    return max(seen)
