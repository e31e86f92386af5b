"""What a training step costs: full fine-tuning, PEFT, visionlora and the floor, interleaved in one run."""

import json
import math
import statistics
import subprocess
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.step_measures import Measured, interleave, peak_bytes, saved_bytes
from benchmarks.step_methods import METHODS, ON_REQUEST, make_step
from benchmarks.step_tasks import TASKS, Setup, default_backbone
from visionlora.models.detector import detector_names
from visionlora.models.segmenter import segmenter_names

MIB = 2**20
DEFAULTS = {"classification": (224, 8, 16), "detection": (480, 4, 4), "segmentation": (480, 4, 4)}
"""Size, batch, batch when bytes are counted."""
_COMPILED = ", compiled"
"""Behind a method's name: its steps through ``torch.compile``."""


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--task", choices=TASKS, default="classification", help="(default: %(default)s)")
    parser.add_argument(
        "--model", help="timm's name; random weights (resnet50; under a detector tf_efficientnet_lite0)"
    )
    parser.add_argument(
        "--detector",
        choices=detector_names(),
        default="retinanet",
        metavar="NAME",
        help="%(choices)s (default: %(default)s)",
    )
    parser.add_argument(
        "--decoder",
        choices=segmenter_names(),
        default="unet",
        metavar="NAME",
        help="%(choices)s (default: %(default)s)",
    )
    parser.add_argument("--batch", type=_positive, help="images in a timed step (8; a detector's 4)")
    parser.add_argument("--bytes-batch", type=_positive, help="images when bytes are counted (16; a detector's 4)")
    parser.add_argument("--size", type=_positive, help="side of the images (224; a detector's 480)")
    parser.add_argument("--rank", type=_positive, default=8, help="(default: %(default)s)")
    parser.add_argument("--route", default="auto", help="of visionlora's gradients: auto, factored, dense, reference")
    parser.add_argument(
        "--memory", choices=("fast", "low"), default="fast", help="see train.memory (default: %(default)s)"
    )
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--autocast", choices=("off", "bf16"), default="off")
    modes = ("off", "default", "reduce-overhead", "max-autotune")
    parser.add_argument("--compile", nargs="?", const="default", default="off", choices=modes, help="every model, too")
    parser.add_argument("--graph", action="store_true", help="time forward and backward as replays of a CUDA graph")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=_positive, default=9, help="of every method in turn (default: %(default)s)")
    methods = (*METHODS, *ON_REQUEST)
    but = f"(all but {', '.join(ON_REQUEST)}; a classifier's without floor+head, head)"
    parser.add_argument("--methods", nargs="+", choices=methods, help=but)
    parser.add_argument("--peak", action="store_true", help="peak memory too, each method in a process of its own")
    parser.add_argument("--peak-of", choices=methods, help="print the bytes of this method's peak, and nothing else")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")


def run(arguments: Namespace) -> int:
    """Measure and print the table."""
    setup = _setup(arguments)
    if arguments.peak_of:
        print(peak_bytes(arguments.peak_of, replace(setup, compile="off")))
        return 0
    console = Console(width=None if Console().is_terminal else 150)
    with Progress(MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"), console=console) as bar:
        results = measure(setup, arguments, bar)
    show(results, setup, arguments, console)
    if arguments.json:
        data = {"setup": asdict(setup), "results": {name: asdict(result) for name, result in results.items()}}
        arguments.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0


def _setup(arguments: Namespace) -> Setup:
    """What was asked for; what was not is filled in, in the arguments too."""
    task = arguments.task
    size, batch, bytes_batch = DEFAULTS[task]
    arguments.bytes_batch = arguments.bytes_batch or bytes_batch
    arguments.methods = arguments.methods or list(METHODS[:4] if task == "classification" else METHODS)
    over = {"classification": None, "detection": arguments.detector, "segmentation": arguments.decoder}[task]
    return Setup(
        task=task,
        over=over,
        model=arguments.model or (default_backbone(over) if over else "resnet50"),
        batch=arguments.batch or batch,
        size=arguments.size or size,
        rank=arguments.rank,
        route=arguments.route,
        memory=arguments.memory,
        channels_last=arguments.channels_last,
        autocast=arguments.autocast,
        compile=arguments.compile,
        graph=arguments.graph,
        device=arguments.device,
    )


def measure(setup: Setup, arguments: Namespace, bar: Progress) -> dict[str, Measured]:
    """Bytes first, each method alone in memory; then times of all of them in turn; then peaks."""
    methods = arguments.methods
    plain = replace(setup, compile="off")
    made = {name: (name, plain) for name in methods}
    if setup.compile != "off":
        made |= {f"{name}{_COMPILED}": (name, setup) for name in methods}
    task = bar.add_task("", total=len(methods) * (1 + arguments.peak) + len(made) + arguments.rounds)
    saved = {}
    for name in methods:
        bar.update(task, description=f"bytes of {name}")
        saved[name] = saved_bytes(name, plain, arguments.bytes_batch)
        bar.advance(task)
    steps = {name: make_step(*each) for name, each in made.items()}
    bar.update(task, description="time")
    results = interleave(steps, arguments.rounds, setup.device, on_round=lambda: bar.advance(task))
    del steps
    for name in methods:
        results[name].saved = saved[name]
        if arguments.peak:
            bar.update(task, description=f"peak of {name}")
            own = [argument for argument in sys.argv if argument != "--peak"]
            printed = subprocess.run([sys.executable, *own, "--peak-of", name], check=True, stdout=subprocess.PIPE)
            results[name].peak = int(printed.stdout)
            bar.advance(task)
    return results


def show(results: dict[str, Measured], setup: Setup, arguments: Namespace, console: Console) -> None:
    """A row for each method; ratios are medians over the rounds with their quartiles."""
    others = [name for name in ("floor", "floor+head", "peft", "full") if name in results]
    compiles = ["first step, s", "pays after"] if setup.compile != "off" else []
    table = Table("", "step, ms", *(f"/ {name}" for name in others), *compiles, "saved, MiB", "/ peft", "peak, MiB")
    for name, result in results.items():
        ratios = ["" if name == other else _ratio(result, results[other]) for other in others]
        bytes_ratio = ""
        if "peft" in results and name != "peft" and result.saved:
            bytes_ratio = f"{result.saved / results['peft'].saved:.2f}"
        saved, peak = (f"{size / MIB:.0f}" if size else "" for size in (result.saved, result.peak))
        plain = results[name.removesuffix(_COMPILED)]
        compiling = [f"{result.first:.1f}", "" if plain is result else pays_after(result, plain)] if compiles else []
        table.add_row(name, f"{1e3 * result.step:.0f}", *ratios, *compiling, saved, bytes_ratio, peak)
    console.print(table)
    model = " over ".join(name for name in (setup.over, setup.model) if name)
    layout = "channels_last" if setup.channels_last else "NCHW"
    compiled = "" if setup.compile == "off" else f", compile {setup.compile}"
    compiled += ", replayed as CUDA graphs" if setup.graph else ""
    memory = ", memory low" if setup.memory == "low" else ""
    where = torch.cuda.get_device_name() if setup.device.startswith("cuda") else f"{torch.get_num_threads()} threads"
    console.print(
        f"{model}, {layout}, {setup.size} px, rank {setup.rank}, batch {setup.batch} (bytes: "
        f"{arguments.bytes_batch}), autocast {setup.autocast}{memory}{compiled}; {where}, torch {torch.__version__}; "
        f"{arguments.rounds} rounds, median (quartiles)"
    )


def pays_after(compiled: Measured, plain: Measured) -> str:
    """So many steps win what the first one took longer."""
    won = plain.step - compiled.step
    return f"{math.ceil((compiled.first - plain.first) / won)} steps" if won > 0 else "never"


def _ratio(result: Measured, other: Measured) -> str:
    ratios = [mine / theirs for mine, theirs in zip(result.seconds, other.seconds, strict=True)]
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}"
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number} is not above 0")
    return number
