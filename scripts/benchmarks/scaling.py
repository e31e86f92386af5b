"""What several processes send in a step of LoRA and of full fine-tuning, counted, and what that costs at most."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

import timm
from rich.console import Console
from rich.table import Table
from torch import nn

import visionlora as vl

GPUS = (2, 8, 64)
OVERHEAD = 20e-6
"""Seconds that each of an all-reduce's messages takes, however short it is: assumed."""


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    default = ["resnet50", "vit_base_patch16_224", "vit_large_patch16_224"]
    parser.add_argument("--model", nargs="+", default=default, help="timm's names (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--classes", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--gbit", type=float, default=25.0, help="between two of them, a second (default: %(default)s)")
    parser.add_argument("--compute-ms", type=float, default=100.0, help="a process's share (default: %(default)s)")


def run(arguments: Namespace) -> int:
    """Print a row for each model and method."""
    table = Table(box=None)
    for name in ("model", "method", "MB a step", *(f"{gpus} GPUs: ms, share" for gpus in GPUS)):
        table.add_column(name, justify="left" if name in ("model", "method") else "right")
    for name in arguments.model:
        for method in ("LoRA", "full"):
            sent = message(trainable(name, method, arguments.rank, arguments.classes))
            costs = [all_reduce_seconds(sent, gpus, arguments.gbit * 1e9 / 8) for gpus in GPUS]
            compute = arguments.compute_ms / 1000
            cells = [f"{1000 * cost:.1f}, {compute / (compute + cost):.1%}" for cost in costs]
            table.add_row(name, method, f"{sent / 1e6:.2f}", *cells)
    Console(width=120).print(table)
    return 0


def trainable(name: str, method: str, rank: int, classes: int) -> list[nn.Parameter]:
    """What trains of a classifier, whose head is new, with LoRA on every layer or in full."""
    model = timm.create_model(name, pretrained=False, num_classes=classes)
    if method == "LoRA":
        vl.attach(model, vl.LoRAConfig(rank=rank, unfreeze=[model.pretrained_cfg["classifier"]]))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def message(parameters: Iterable[nn.Parameter]) -> int:
    """Bytes of a step's gradients, which ``Processes.sum_gradients`` sums as one flat tensor."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def all_reduce_seconds(sent: int, gpus: int, bytes_per_second: float) -> float:
    """Of a ring: 2 (n - 1) messages of 1/n of the bytes each, one after the other (Patarasu and Yuan, 2009)."""
    return 2 * (gpus - 1) * (sent / gpus / bytes_per_second + OVERHEAD)
