"""How often the score with the most labels lies in the interval that was foretold from fewer, in finished studies."""

import json
import statistics
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from visionlora.errors import InputError
from visionlora.studies.forecast import LEAST, Forecast, forecast

_COLUMNS = ("study", "method", "images", "foretold", "80% interval", "found", "holds")


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("studies", type=Path, nargs="+", help="folders of visionlora compare --shots 6,12,24,all")


def run(arguments: Namespace) -> int:
    """A row for each method of each study; a case holds where the mean of its runs lies in the interval."""
    table, console = Table(*_COLUMNS), Console()
    held = 0
    for study in arguments.studies:
        found = json.loads((study / "results.json").read_text(encoding="utf-8"))
        for method in dict.fromkeys((one["method"], one["rank"]) for one in found["runs"]):
            runs = [one for one in found["runs"] if (one["method"], one["rank"]) == method]
            most, given, foretold, scores = _foretold(runs, found["tested"], study)
            mean = statistics.fmean(scores)
            holds = foretold.low <= mean <= foretold.high
            held += holds
            table.add_row(
                study.name,
                " ".join(str(part) for part in method if part),
                f"{given} -> {most}",
                f"{foretold.score:.3f}",
                f"{foretold.low:.3f}, {foretold.high:.3f}",
                f"{mean:.3f}",
                "yes" if holds else "no",
            )
    console.print(table)
    console.print(f"{held} of {table.row_count} cases lie in the interval")
    return 0


def _foretold(runs: list[dict[str, Any]], tested: int, study: Path) -> tuple[int, int, Forecast, list[float]]:
    """The most images, the most of those that it is foretold from, the forecast, and what it came to.

    Raises:
        InputError: there are too few numbers of labels to foretell the largest from the others.
    """
    points = [(one["images"], one["score"]) for one in runs if one["score"] is not None]
    most = max((images for images, _ in points), default=0)
    fewer = [(images, score) for images, score in points if images < most]
    found = forecast(fewer, [most], tested)
    if not found:
        raise InputError(f"{study}: needs {LEAST + 1} numbers of labels or more, of which the largest is foretold")
    return most, max(images for images, _ in fewer), found[0], [score for images, score in points if images == most]
