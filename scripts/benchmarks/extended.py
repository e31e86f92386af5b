"""A base with new classes beside its own: time of an image against the base's, by where the adapter begins."""

import json
import statistics
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import visionlora as vl
from visionlora.models.classifier import Classifier, create_classifier
from visionlora.models.extended import Extended
from visionlora.models.joined_outputs import JoinLogits

DEPTHS = (0, 1 / 3, 2 / 3)
"""Of the convolutions and linear layers, the share that no adapter is on."""


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--model", default="resnet50", help="random weights (default: %(default)s)")
    parser.add_argument("--size", type=int, help="side of the images in pixels (default: the model's)")
    parser.add_argument("--batch", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--from", dest="stages", nargs="+", help="modules (default: three depths of the layers)")
    parser.add_argument("--rounds", type=int, default=15, help="of every model in turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="(default: torch's)")
    parser.add_argument("--cpu-time", action="store_true", help="seconds that this process computed, not that passed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")


@torch.no_grad()
def run(arguments: Namespace) -> int:
    """Measure in turn, and print ratios of medians."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    built = _built(arguments, 1000)
    base = built.model
    side = arguments.size or built.data_config["input_size"][1]
    images = torch.randn(arguments.batch, 3, side, side)
    stages = arguments.stages or _depths(base, built.head)
    models: dict[str, nn.Module] = {"base": base, **{stage: _extended(arguments, base, stage) for stage in stages}}
    seconds = _timed(models, images, arguments)
    rows = []
    for stage in stages:
        model = models[stage]
        assert isinstance(model, Extended)
        ratio = statistics.median(one / other for one, other in zip(seconds[stage], seconds["base"], strict=True))
        shared = sum(p.numel() for path in model.shared("new") for p in base.get_submodule(path).parameters())
        rows.append({"from": stage, "ratio": ratio, "shared": shared / sum(p.numel() for p in base.parameters())})
    _show(rows, statistics.median(seconds["base"]), arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps({"model": arguments.model, "rows": rows}, indent=1))
    return 0


def _built(arguments: Namespace, classes: int) -> Classifier:
    torch.manual_seed(0)
    size = None if arguments.size is None else (arguments.size, arguments.size)
    built = create_classifier(arguments.model, classes, pretrained=False, img_size=size)
    built.model.eval()
    return built


def _depths(model: nn.Module, head: list[str]) -> list[str]:
    layers = [path for path, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    layers = [path for path in layers if path not in head]
    return [layers[int(share * len(layers))] for share in DEPTHS]


def _extended(arguments: Namespace, base: nn.Module, stage: str) -> Extended:
    other = _built(arguments, 10).model
    own = other.state_dict()
    other.load_state_dict({**own, **{key: t for key, t in base.state_dict().items() if t.shape == own[key].shape}})
    vl.attach(other, vl.LoRAConfig(rank=8, exclude=[f"before:{stage}"]))
    for name, parameter in other.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.01)
    return Extended(base, {"new": vl.merge(other).eval()}, JoinLogits())


def _timed(models: dict[str, nn.Module], images: Tensor, arguments: Namespace) -> dict[str, list[float]]:
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(arguments.rounds + 2):
        for name, model in models.items():
            begun = clock()
            model(images)
            if number >= 2:
                seconds[name].append(clock() - begun)
    return seconds


def _show(rows: list[dict[str, Any]], base: float, arguments: Namespace) -> None:
    table = Table("adapter from", "time / base", "parameters shared")
    for row in rows:
        table.add_row(row["from"], f"{row['ratio']:.2f}", f"{row['shared']:.0%}")
    console = Console()
    console.print(table)
    console.print(f"{arguments.model}: the base takes {1e3 * base:.1f} ms for {arguments.batch} images")
