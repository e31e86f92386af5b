"""``visionlora compare``."""

from pathlib import Path

from rich.console import Console

from visionlora.cli.configs import read_config
from visionlora.cli.show import print_table, say
from visionlora.errors import InputError
from visionlora.studies.plan import Plan, parse_budget, parse_list, parse_ranks, parse_rates, parse_shots
from visionlora.training.started import started_processes

_SHOWN = (0, 1, 2, 3, 6, 9)
"""Columns of the table that fit on a terminal of 80."""


def compare(
    config: str,
    overrides: list[str],
    methods: str,
    ranks: str,
    shots: str,
    budget: str,
    seeds: int,
    evaluations: int,
    rates: str,
    jobs: int,
    out: Path,
    resume: bool,
) -> None:
    """Train every method, and print the table and what to choose."""
    if (processes := started_processes()) > 1:
        raise InputError(f"a comparison trains in one process, and {processes} were started; leave torchrun out")
    settings = read_config(config, overrides).model_copy(update={"out": out})
    given, labels, words = parse_budget(budget), parse_shots(shots), parse_list(methods, "--methods", str)
    apart = parse_rates(rates)
    if settings.lora.rank == "auto":
        raise InputError("lora.rank is 'auto'; give the config a number, and compare lora:rank=auto+budget=2MB with it")
    of_each = parse_ranks(ranks) if ranks else (settings.lora.rank,)

    from visionlora.studies.choosing import advice
    from visionlora.studies.compare import compare as run_study
    from visionlora.studies.methods import parse_methods
    from visionlora.studies.report import HEADER, REPORT, cells, write_report

    plan = Plan(settings, tuple(parse_methods(words, of_each)), labels, given, seeds, evaluations, jobs, apart)
    found = run_study(plan, resume, Console())
    rows = write_report(found)
    print_table([HEADER[i] for i in _SHOWN], [[cells(row)[i] for i in _SHOWN] for row in rows])
    say(advice(rows, found))
    say(f"the report is {out / REPORT}, with what to mind; TensorBoard: tensorboard --logdir {out}")
