"""What a whole training run costs as people start it, and where its seconds go: a process for each method."""

import json
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.run_methods import METHODS, Ran, run_method

MIB = 2**20
PARTS = ("data", "forward", "backward", "optimizer", "logging", "evaluation", "checkpoints")


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="random weights (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="each with its evaluation (default: %(default)s)")
    parser.add_argument("--images", type=int, default=192, help="to train on; a third as many to validate")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of class folders (default: generated scenes)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images (default: %(default)s)")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--memory", choices=("fast", "low"), default="fast", help="see train.memory")
    parser.add_argument("--rank", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of every method in turn (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--only", choices=METHODS, help="run this method here and print what was measured as JSON")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")


def run(arguments: Namespace) -> int:
    """Measure and print the table."""
    if arguments.only:
        print(json.dumps(run_method(arguments.only, arguments)))
        return 0
    results: dict[str, list[Ran]] = {name: [] for name in arguments.methods}
    console = Console(width=None if Console().is_terminal else 160)
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or _scenes(Path(folder), arguments)
        for number in range(arguments.rounds):
            turn = number % len(arguments.methods)
            for name in arguments.methods[turn:] + arguments.methods[:turn]:
                command = [sys.executable, *sys.argv, "--data", str(data), "--only", name]
                printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                results[name].append(json.loads(printed.splitlines()[-1]))
                console.print(f"round {number + 1}: {name} {results[name][-1]['images_per_s']:.1f} images/s")
    console.print(_table(results))
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    console.print(
        f"{arguments.model}, {arguments.size} px, batch {arguments.batch}, {arguments.workers} workers, rank "
        f"{arguments.rank}, memory {arguments.memory}; {where}, torch {torch.__version__}; medians of "
        f"{arguments.rounds} rounds"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def _scenes(folder: Path, arguments: Namespace) -> Path:
    """Generated images in class folders; as many of each class."""
    from PIL import Image

    from visionlora.demo.camera import DAY
    from visionlora.demo.scenes import CLASSES, make_scene

    for part, images in (("train", arguments.images), ("val", arguments.images // 3)):
        for index in range(images):
            place = folder / part / CLASSES[index % len(CLASSES)]
            place.mkdir(parents=True, exist_ok=True)
            scene = Image.fromarray(make_scene(DAY, len(part), index).image)
            scene.resize((320, 320)).save(place / f"{index:05}.jpg", quality=90)
    return folder


def _table(results: dict[str, list[Ran]]) -> Table:
    """A row for each method; the ratio is that of each round's images/s to ``full``'s and ``peft``'s."""
    others = [name for name in ("full", "peft") if name in results]
    table = Table("", "images/s", *(f"/ {name}" for name in others), "seconds", "peak, MiB", *PARTS)
    for name, runs in results.items():
        ratios = [_ratio(runs, results[other]) if other != name else "" for other in others]
        parts = [
            f"{100 * _median(run['parts'].get(part, 0.0) / run['seconds'] for run in runs):.0f}%" for part in PARTS
        ]
        table.add_row(
            name,
            f"{_median(run['images_per_s'] for run in runs):.1f}",
            *ratios,
            f"{_median(run['seconds'] for run in runs):.1f}",
            f"{_median(run['peak'] for run in runs) / MIB:.0f}",
            *parts,
        )
    return table


def _ratio(runs: list[Ran], others: list[Ran]) -> str:
    ratios = [mine["images_per_s"] / theirs["images_per_s"] for mine, theirs in zip(runs, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _median(values: object) -> float:
    return statistics.median(values)  # type: ignore[call-overload,no-any-return]
