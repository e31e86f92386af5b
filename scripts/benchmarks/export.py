"""Whether every family leaves the house unchanged: parity, size and latency of each format."""

import copy
import gc
import json
import tempfile
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.export_models import Case, cases, make
from visionlora.adapters import norm
from visionlora.adapters.folding import fold_batchnorm, unfold_batchnorm
from visionlora.errors import InputError
from visionlora.exports.export import write_checked
from visionlora.exports.formats import FORMATS
from visionlora.exports.images import generated_images
from visionlora.exports.latency import over_images
from visionlora.exports.onnx.graph import batchnorms_after_convs, import_onnx
from visionlora.exports.source import Source
from visionlora.tasks.registry import task_of

REASON = 100
"""Characters of a failure's reason in the table; the JSON file has the whole."""


@dataclass(frozen=True)
class Row:
    """One export. ``difference`` and ``ratios`` are as ``Exported`` has them; ``folded`` is the
    merged model's time with BatchNorm folded relative to its time without; ``reason`` is why it failed."""

    group: str
    model: str
    to: str
    difference: float | None = None
    compared: str = ""
    megabytes: float | None = None
    ratios: dict[str, float] | None = None
    folded: float | None = None
    unfolded: int | None = None
    seconds: float = 0.0
    reason: str = ""


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--only", metavar="PATTERN", help="models whose name has this in it, or matches this glob")
    parser.add_argument("--to", choices=list(FORMATS), help="this format alone")
    parser.add_argument("--rounds", type=int, default=5, help="how often each model is timed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")


def run(arguments: Namespace) -> int:
    """Measure, print the table, and answer 1 if an export fails."""
    console = Console(width=None if Console().is_terminal else 160)
    chosen = cases(arguments.only)
    if not chosen:
        console.print(f"error: no model's name matches '{arguments.only}'")
        return 2
    rows = []
    for case in chosen:
        source = make(case)
        folded = _folded(source, case.task, arguments.rounds)
        for to in case.formats:
            if arguments.to in (None, to):
                rows.append(_measure(case, source, to, arguments.rounds, folded))
                console.print(f"{rows[-1].model} to {to}: {rows[-1].reason or rows[-1].difference}", highlight=False)
        del source
        gc.collect()
    console.print(_table(rows))
    failed = [row for row in rows if row.reason]
    console.print(f"{len(rows) - len(failed)} of {len(rows)} exports pass; torch {torch.__version__}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _measure(case: Case, source: Source, to: str, rounds: int, folded: float | None) -> Row:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        try:
            result = write_checked(source, to, out, [], rounds)
        except InputError as error:
            return Row(case.group, case.name, to, seconds=time.monotonic() - started, reason=str(error))
        unfolded = batchnorms_after_convs(import_onnx()[0].load(out / result.file)) if to == "onnx" else None
        return Row(
            group=case.group,
            model=case.name,
            to=to,
            difference=result.difference,
            compared=result.compared,
            megabytes=result.bytes / 1e6,
            ratios=result.ratios(),
            folded=folded,
            unfolded=unfolded,
            seconds=time.monotonic() - started,
        )


def _folded(source: Source, task: str, rounds: int) -> float | None:
    """Time of the merged model whose BatchNorm is a part of the convolutions, relative to without; None if none is."""
    merged, kind = source.trained.model, task_of(task)
    inputs = [kind.to_input(image, source.trained.preprocessing) for image in generated_images()]
    model = _without_batchnorm(merged, [inputs[0]] if task == "detection" else inputs[0][None])
    if model is None:
        return None
    seconds = over_images({"merged": merged, "folded": model}, kind.run, inputs, rounds)
    return seconds["folded"] / seconds["merged"]


def _without_batchnorm(merged: nn.Module, example: object) -> nn.Module | None:
    """A copy of the plain model with BatchNorm in the weights of the convolutions, for good, as in an ONNX file."""
    model = copy.deepcopy(merged).requires_grad_(False)
    for module in model.modules():
        if norm.has_running_stats(module):
            norm.freeze(module)
    folded = fold_batchnorm(model, example)
    names = {module: name for name, module in model.named_modules()}
    for conv, batchnorm in unfold_batchnorm(model):
        fused = fuse_conv_bn_eval(conv, batchnorm)
        conv.weight, conv.bias = fused.weight, fused.bias
        model.set_submodule(names[batchnorm], getattr(batchnorm, "act", nn.Identity()))
    return model if folded else None


def _table(rows: list[Row]) -> Table:
    table = Table(
        "model",
        "to",
        "difference",
        "MB",
        "adapted / base",
        "merged / base",
        "folded / merged",
        "exported / base",
        "unfolded BN",
    )
    for row in rows:
        if row.ratios is None or row.difference is None or row.megabytes is None:
            table.add_row(row.model, row.to, row.reason[:REASON])
            continue
        adapted, merged, exported = (f"{row.ratios[name]:.2f}" for name in ("adapted", "merged", "exported"))
        folded = "" if row.folded is None else f"{row.folded:.2f}"
        unfolded = "" if row.unfolded is None else str(row.unfolded)
        table.add_row(
            row.model,
            row.to,
            f"{row.difference:.0e}",
            f"{row.megabytes:.1f}",
            adapted,
            merged,
            folded,
            exported,
            unfolded,
        )
    return table
