"""The folder of a study: whose it is, and by what it is known again."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visionlora.errors import InputError, some
from visionlora.files import unfinished, write_json
from visionlora.plain_json import read_json
from visionlora.studies.plan import APART, TOGETHER, Plan
from visionlora.training.lock import LOCK, locked
from visionlora.training.resuming import fixed_settings, refuse_other_data

STUDY, TRIALS, RATES, RUNS, OUTCOMES = "study.json", "trials", "rates", "runs", "outcomes"
"""What it holds: what it is known by, what a step costs, runs by which rates were chosen, runs, what they came to."""


@contextmanager
def opened(plan: Plan, resume: bool) -> Iterator[str]:
    """The study's folder, kept from other processes; what is yielded is empty, or says why that can't be.

    Raises:
        InputError: it is not empty and nobody said to go on, it holds something else or another study, or another
            process is at work in it.
    """
    folder = plan.config.out
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"--out {folder}: {path} is a file; give a folder")
    there = {path.name for path in folder.iterdir()} - {LOCK} if folder.exists() else set()
    there = {name for name in there if not unfinished(name)}
    if there and not (folder / STUDY).is_file():
        raise InputError(f"--out {folder}: holds {some(sorted(there))}, and no study; give another folder")
    begun = bool(there & {RATES, RUNS})
    if begun and not resume:
        raise InputError(f"--out {folder}: holds a study; --resume goes on with it, or give another folder")
    if begun:
        _refuse_other_plan(plan, _read_plan(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as note:
        if not begun:  # no run was: what was refused, or stopped, before then stands in nobody's way
            (folder / STUDY).unlink(missing_ok=True)
            shutil.rmtree(folder / TRIALS, ignore_errors=True)
        yield note


def _described(plan: Plan) -> dict[str, Any]:
    """What a study is known by again: what its runs have in common. How many there are may change."""
    train = plan.config.train
    rates = {"train.lr": train.lr, "train.head_lr": train.head_lr, "train.epochs": train.epochs}
    searched = APART if plan.rates_apart else TOGETHER
    own = {"budget": str(plan.budget), "rates": searched, "evaluations": plan.evaluations}
    return {**own, "settings": {**fixed_settings(plan.config), **rates}}


def _read_plan(folder: Path) -> dict[str, Any]:
    values = read_json((folder / STUDY).read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not isinstance(values.get("settings"), dict):
        raise InputError(f"{folder / STUDY}: is none of a study; bring it back, or give another folder")
    return values


def _refuse_other_plan(plan: Plan, before: dict[str, Any]) -> None:
    now, old = _described(plan), before["settings"]
    changed = [
        f"{key} ({old.get(key)!r}, now {value!r})" for key, value in now["settings"].items() if old.get(key) != value
    ]
    # A study from before these stood there searched both rates together, and says nothing of its evaluations.
    before = {"rates": TOGETHER, "evaluations": plan.evaluations, **before}
    changed[:0] = [
        f"--{option} ({before.get(option)}, now {now[option]})"
        for option in ("budget", "rates", "evaluations")
        if before.get(option) != now[option]
    ]
    if changed:
        raise InputError(
            f"--out {plan.config.out}: is another study, with other settings: {some(changed, 3)}; bring them back, or "
            "give another folder"
        )


def keep_plan(plan: Plan, data: dict[str, Any]) -> None:
    """Write what a new study is known by. InputError if this one was begun with other data."""
    path = plan.config.out / STUDY
    if path.is_file():
        refuse_other_data(_read_plan(plan.config.out)["data"], data, path)
    else:
        write_json(path, {**_described(plan), "data": data})
