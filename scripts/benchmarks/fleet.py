"""Mixed batches: images/s with many adapters against one, against switching per image, and against PEFT's."""

import gc
import json
import statistics
import tempfile
import time
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import visionlora as vl
from visionlora.adapters.fleet.fleet import Fleet
from visionlora.adapters.layer import adapted_layers

MIB = 2**20
ONE = "one adapter"


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--model", default="resnet50", help="random weights (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 4, 16, 64], help="in the mixed batches")
    parser.add_argument("--rank", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--targets", nargs="+", default=["all"], help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="of every way in turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="(default: torch's)")
    parser.add_argument("--no-peft", action="store_true")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count seconds that this process computed and not those that passed, where the machine has other work",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")


@torch.no_grad()
def run(arguments: Namespace) -> int:
    """Measure and print the tables."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    names = [f"camera{number}" for number in range(max(arguments.adapters))]
    with tempfile.TemporaryDirectory() as folder:
        files = _files(names, Path(folder), arguments)
        file_bytes = files[names[0]].stat().st_size
        before = _resident()
        first = Fleet(_model(arguments), {names[0]: files[names[0]]})
        one = _resident()
        del first
        gc.collect()
        several = _resident()
        fleet = Fleet(_model(arguments), files)
        more = (_resident() - several) - (one - before)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    ways = _ways(fleet, names, images, arguments)
    if not arguments.no_peft:
        ways |= _peft_ways(names, images, arguments)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    seconds = interleave(ways, arguments.rounds, clock)
    console = Console(width=None if Console().is_terminal else 120)
    console.print(_table(seconds, arguments.batch))
    each = more / (len(names) - 1) if len(names) > 1 else float("nan")
    switch = _switch_seconds(fleet, names)
    facts = {
        "file_mib": file_bytes / MIB,
        "memory_mib_per_adapter": each / MIB,
        "switch_ms": 1000 * switch,
        "reason": fleet.reason,
    }
    console.print(
        f"a further adapter: {each / MIB:.2f} MiB of the process, {each / file_bytes:.2f} of its file "
        f"({file_bytes / MIB:.2f} MiB); a switch: {1000 * switch:.2f} ms"
    )
    if fleet.reason:
        console.print(f"camera by camera: {fleet.reason}")
    console.print(
        f"{arguments.model}, {arguments.size} px, batch {arguments.batch}, rank {arguments.rank} on "
        f"{' '.join(arguments.targets)}; {torch.get_num_threads()} threads, "
        f"{'computing' if arguments.cpu_time else 'passing'} time, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__}; medians and quartiles of {arguments.rounds} rounds"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds": seconds, **facts}, indent=1) + "\n", encoding="utf-8")
    return 0


def interleave(
    ways: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each way in each round; who goes first changes from round to round, and one call warms up."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = clock()
            ways[name]()
            seconds[name].append(clock() - started)
    return seconds


def cameras_of(batch: int, adapters: list[str]) -> list[str]:
    """A camera for each image of a batch: as many as there are, evenly, in mixed order."""
    step = max(1, len(adapters) // batch)
    return [adapters[image * step % len(adapters)] for image in range(batch)]


def _ways(fleet: Fleet, names: list[str], images: Tensor, arguments: Namespace) -> dict[str, Callable[[], Any]]:
    def one() -> Any:
        return fleet.switch(names[0])(images)

    def switching() -> Any:
        cameras = cameras_of(len(images), names)
        return [fleet.switch(camera)(images[at : at + 1]) for at, camera in enumerate(cameras)]

    ways: dict[str, Callable[[], Any]] = {ONE: one}
    for count in arguments.adapters:
        cameras = cameras_of(len(images), names[:count])
        ways[f"mixed, {count} adapters"] = lambda cameras=cameras: fleet(images, cameras)
    return {**ways, "switching per image": switching}


def _peft_ways(names: list[str], images: Tensor, arguments: Namespace) -> dict[str, Callable[[], Any]]:
    from peft import LoraConfig, get_peft_model

    # On the same layers; grouped convolutions are left out, for their factors don't fit in PEFT.
    targets = [path for path, layer in adapted_layers(_adapted(arguments)) if getattr(layer, "groups", 1) == 1]
    config = LoraConfig(r=arguments.rank, lora_alpha=16, target_modules=targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = get_peft_model(_model(arguments), config, adapter_name=names[0])
        for name in names[1:]:
            model.add_adapter(name, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.02)
    model.eval()
    ways: dict[str, Callable[[], Any]] = {}
    for count in arguments.adapters:
        cameras = cameras_of(len(images), names[:count])
        ways[f"PEFT, {count} adapters"] = lambda cameras=cameras: model(images, adapter_names=cameras)
    return ways


def _model(arguments: Namespace) -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": arguments.size} if "vit" in arguments.model else {}
    return timm.create_model(arguments.model, num_classes=10, **size).eval()


def _adapted(arguments: Namespace) -> nn.Module:
    model = _model(arguments)
    targets = "all" if arguments.targets == ["all"] else arguments.targets
    vl.attach(model, vl.LoRAConfig(rank=arguments.rank, targets=targets, unfreeze=[model.default_cfg["classifier"]]))
    return model


def _files(names: list[str], folder: Path, arguments: Namespace) -> dict[str, Path]:
    """An adapter's file for each camera, none at its start, with a head of its own."""
    model = _adapted(arguments)
    files = {name: folder / f"{name}.safetensors" for name in names}
    for path in files.values():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
        vl.save_adapter(model, path)
    return files


def _switch_seconds(fleet: Fleet, names: list[str]) -> float:
    """Median of a switch to another camera."""
    seconds = []
    for number in range(50):
        started = time.perf_counter()
        fleet.switch(names[number % len(names)])
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _resident() -> int:
    """Bytes of the process's memory that are its own now."""
    gc.collect()
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


def _table(seconds: dict[str, list[float]], batch: int) -> Table:
    """A row for each way; ratios are those of each round's images/s to one adapter's and to PEFT's with as many."""
    table = Table("", "images/s", "/ one adapter", "/ PEFT")
    for name, runs in seconds.items():
        peft = seconds.get(name.replace("mixed", "PEFT")) if name.startswith("mixed") else None
        table.add_row(
            name,
            f"{batch / statistics.median(runs):.1f}",
            _ratio(seconds[ONE], runs),
            "" if peft is None else _ratio(peft, runs),
        )
    return table


def _ratio(others: list[float], mine: list[float]) -> str:
    """Median and quartiles of each round's ratio of speeds, ``mine`` to ``others``."""
    ratios = [theirs / own for theirs, own in zip(others, mine, strict=True)]
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"
