"""Calls in processes of their own: the same values, stopped with the study, and told of when one is killed."""

import os
import signal
import sys
import time
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from visionlora.errors import InputError
from visionlora.stopping import Interrupted, stop_requests
from visionlora.studies.side_by_side import side_by_side

CONSOLE = Console(file=StringIO())


def square(number: int, console: Console) -> tuple[int, int, bool]:
    return number**2, os.getpid(), console.quiet


def wait_for_the_end(file: Path, _console: Console) -> str:
    """A run that is asked to stop, and has something to write before it does."""
    with stop_requests() as asked:
        file.with_suffix(".begun").touch()
        while not asked():
            time.sleep(0.01)
        file.touch()
        raise Interrupted("at step 3", asked())


def die(_console: Console) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def never() -> None:
    """Nobody asks the study to stop."""


def test_values_are_those_of_the_calls() -> None:
    calls = {number: partial(square, number) for number in (3, 1, 2)}
    alone = list(side_by_side(calls, 1, CONSOLE, never))
    assert [(key, *value) for key, value, _ in alone] == [(n, n**2, os.getpid(), False) for n in (3, 1, 2)]
    several = list(side_by_side(calls, 2, CONSOLE, never))
    assert sorted((key, value) for key, (value, _, _), _ in several) == [(1, 1), (2, 4), (3, 9)]
    assert all(pid != os.getpid() and quiet and seconds >= 0 for _, (_, pid, quiet), seconds in several)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no polite signals")
def test_who_is_at_work_ends_politely_before_the_study_does(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}" for number in range(3)]

    def stop() -> None:
        if sum(file.with_suffix(".begun").exists() for file in files) == 2:
            raise Interrupted("between two runs", signal.SIGTERM)

    with pytest.raises(Interrupted, match="between two runs"):
        list(side_by_side({file: partial(wait_for_the_end, file) for file in files}, 2, CONSOLE, stop))
    assert [file.exists() for file in files] == [True, True, False]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_that_is_killed_is_one_line() -> None:
    with pytest.raises(InputError, match="a process of the study was killed.*--resume goes on"):
        list(side_by_side({0: die}, 2, CONSOLE, never))


def test_an_error_of_a_call_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(side_by_side({0: partial(_read, tmp_path / "missing")}, 2, CONSOLE, never))


def _read(file: Path, _console: Console) -> str:
    return file.read_text()
