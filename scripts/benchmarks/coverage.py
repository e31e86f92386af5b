"""How many models each library adapts correctly, layer for layer."""

import fnmatch
import gc
import json
import time
import warnings
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, replace
from pathlib import Path

import timm
import torch
import torchvision
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.coverage_checks import PROPERTIES, Library, Result, check
from benchmarks.coverage_libraries import PEFT, VISIONLORA
from benchmarks.coverage_models import Case, cases, missing_files

PEFT_WITHOUT_GROUPED = "PEFT ungrouped"
REMARK = 90
"""Characters of a reason in the table; the JSON file has the whole."""


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--only", metavar="PATTERN", help="models whose name has this in it, or matches this glob")
    parser.add_argument("--peft", action="store_true", help="the same for PEFT, with and without grouped convolutions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")


def run(arguments: Namespace) -> int:
    """Measure, print the table, and answer 1 if visionlora fails on a model."""
    console = Console(width=None if Console().is_terminal else 160)
    chosen = [case for case in cases() if not arguments.only or _matches(case.name, arguments.only)]
    if not chosen:
        console.print(f"error: no model's name matches '{arguments.only}'")
        return 2
    started = time.monotonic()
    results = measure(chosen, arguments.peft, console)
    show(results, console)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
    console.print(f"{time.monotonic() - started:.0f} s; {', '.join(f'{name} {v}' for name, v in versions.items())}")
    if missing := missing_files():
        console.print(f"timm's model files that are not in the list yet: {', '.join(missing)}")
    if arguments.json:
        data = {"versions": versions, "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0 if all(result.passed for result in results if result.library == VISIONLORA.name) else 1


def measure(chosen: list[Case], peft: bool, console: Console) -> list[Result]:
    """Check each model in turn; one model is in memory at a time."""
    results: list[Result] = []
    columns = (MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = progress.add_task("", total=len(chosen))
        for case in chosen:
            progress.update(task, description=case.name)
            results.append(_timed(case, VISIONLORA))
            if peft:
                results.append(_timed(case, PEFT))
                without = _timed(case, PEFT, grouped=False) if results[-1].grouped else results[-1]
                results.append(replace(without, library=PEFT_WITHOUT_GROUPED))
            progress.advance(task)
    return results


def show(results: list[Result], console: Console) -> None:
    """A row for each model and a line for each library."""
    libraries = list(dict.fromkeys(result.library for result in results))
    table = Table("model", "layers", "grouped", *PROPERTIES, *libraries[1:], "remark")
    by_model: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_model.setdefault((result.group, result.model), []).append(result)
    for (_, model), (ours, *others) in by_model.items():
        marks = ["failed" if name in ours.failures else "ok" for name in PROPERTIES]
        remarks = [f"{ours.idle} idle in eval"] if ours.idle else []
        reasons = {
            next(iter(result.failures.values())): result.library for result in (*others, ours) if result.failures
        }
        remarks += [f"{library}: {reason}"[:REMARK] for reason, library in reasons.items()]
        table.add_row(
            model,
            str(ours.layers),
            str(ours.grouped),
            *marks,
            *("ok" if other.passed else "failed" for other in others),
            "\n".join(remarks),
        )
    console.print(table)
    for library in libraries:
        console.print(f"[bold]{library}[/bold]: {_totals([r for r in results if r.library == library])}")


def _totals(results: list[Result]) -> str:
    groups = list(dict.fromkeys(result.group for result in results))
    parts = [_count([result for result in results if result.group == group], f" {group} models") for group in groups]
    layers = sum(result.layers for result in results)
    return f"{_count(results, '')} models pass ({', '.join(parts)}); {layers:,} layers"


def _count(results: list[Result], what: str) -> str:
    return f"{sum(result.passed for result in results)} of {len(results)}{what}"


def _timed(case: Case, library: Library, grouped: bool = True) -> Result:
    started = time.monotonic()
    result = check(case, library, grouped)
    # Models with adapters refer to themselves, and would wait for the collector.
    gc.collect()
    result.seconds = round(time.monotonic() - started, 2)
    return result


def _matches(name: str, pattern: str) -> bool:
    return pattern in name or fnmatch.fnmatchcase(name, pattern)
