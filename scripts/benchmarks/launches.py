"""What a step asks of a device: kernels, new tensors, and whether the host waits for an answer."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.step_methods import METHODS, ON_REQUEST, make_case
from benchmarks.step_tasks import Setup

MIB = 2**20
_NO_KERNEL = ("empty", "new_empty", "_unsafe_view", "promote_types", "detach", "lift_fresh", "is_same_size")


@dataclass
class Counts:
    """Of one step: kernels, bytes of the tensors that they write anew, and reads that the host waits for."""

    kernels: int = 0
    bytes: int = 0
    waits: int = 0
    names: Counter[str] = field(default_factory=Counter)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--model", default="resnet50", help="timm's name (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="(default: %(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--device", choices=("meta", "cuda"), default="meta", help="meta: operations that are no view")
    parser.add_argument("--names", type=int, default=0, metavar="N", help="also the N operations that come most often")
    parser.add_argument(
        "--methods", nargs="+", choices=(*METHODS, *ON_REQUEST), default=["floor", "full", "peft", "visionlora"]
    )


def run(arguments: Namespace) -> int:
    """Count and print the table."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table("", "kernels", "/ peft", "new tensors, MiB", "waits")
    setup = Setup("classification", None, arguments.model, arguments.batch, arguments.size, arguments.rank)
    found = {name: count(name, setup, arguments.device) for name in arguments.methods}
    for name, counts in found.items():
        ratio = f"{counts.kernels / found['peft'].kernels:.2f}" if "peft" in found else ""
        table.add_row(name, str(counts.kernels), ratio, f"{counts.bytes / MIB:.0f}", str(counts.waits))
    console.print(table)
    for name, counts in found.items():
        if arguments.names:
            console.print(name, ", ".join(f"{op} {times}" for op, times in counts.names.most_common(arguments.names)))
    console.print(
        f"{arguments.model}, {arguments.size} px, batch {arguments.batch}, rank {arguments.rank}: forward and backward "
        f"on {arguments.device}, torch {torch.__version__}"
    )
    return 0


def count(method: str, setup: Setup, device: str = "meta") -> Counts:
    """Of a forward and a backward; on the meta device, whose tensors hold no numbers, a read back is an error."""
    model = make_case(method, setup).model.to(device)
    images = torch.zeros(setup.batch, 3, setup.size, setup.size, device=device)
    labels = torch.zeros(setup.batch, dtype=torch.long, device=device)

    def step() -> None:
        F.cross_entropy(model(images), labels).backward()
        model.zero_grad(set_to_none=True)

    step()  # what is made once
    return _profiled(step) if device == "cuda" else _dispatched(step)


def _dispatched(step: Callable[[], None]) -> Counts:
    with _Dispatched() as counted:
        step()
    return counted.counts


class _Dispatched(TorchDispatchMode):
    """An operation that is no view and computes something is taken for one kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(each) for each in tree_leaves((args, kwargs))}
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if not function.is_view and not name.startswith(_NO_KERNEL):
            made = [each for each in tree_leaves(result) if isinstance(each, torch.Tensor) and id(each) not in given]
            self.counts.kernels += 1
            self.counts.bytes += sum(each.nbytes for each in made)
            self.counts.names[name] += 1
        return result


def _profiled(step: Callable[[], None]) -> Counts:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()["allocated_bytes.all.allocated"]
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
    bytes = torch.cuda.memory_stats()["allocated_bytes.all.allocated"] - before
    names = Counter({event.key: event.count for event in profile.key_averages()})
    kernels = sum(times for name, times in names.items() if "LaunchKernel" in name)
    # One synchronisation is the profiler's own, at its end.
    waits = sum(times for name, times in names.items() if "Synchronize" in name) - 1
    return Counts(kernels, bytes, max(0, waits), names)
