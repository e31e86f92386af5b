"""``visionlora train`` in a process of its own that is forked: what takes seconds to import is there already."""

import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from helpers.late_imports import import_all
from visionlora.cli.main import main

if sys.platform == "win32":
    pytest.skip("there is no fork", allow_module_level=True)


class Run:
    """Has begun when it is made; the methods are those of ``subprocess.Popen``."""

    def __init__(self, config: Path, resume: bool) -> None:
        import_all()
        self._said, self._path = tempfile.mkstemp(".txt", "said-", config.parent)
        self._process = multiprocessing.get_context("fork").Process(target=self._main, args=(_command(config, resume),))
        self._process.start()
        self.pid: int = self._process.pid or 0
        os.close(self._said)

    def _main(self, arguments: list[str]) -> None:
        os.setsid()  # a group of its own, which a test may send a signal to
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(self._said, 2)
        _train(arguments)

    def kill(self) -> None:
        """By SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit code, minus the signal's number if it was killed; None while it lives."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """Likewise, when it has ended."""
        self._process.join(timeout)
        return self._process.exitcode

    def said(self, timeout: float | None = None) -> str:
        """What stood on stderr, when it has ended."""
        assert self.wait(timeout) is not None, "it goes on for ever"
        return Path(self._path).read_text(encoding="utf-8")


def train_and_exit(config: Path) -> NoReturn:
    """Train in this process, which is a child that was forked by hand; its exit code is the command line's."""
    try:
        _train(_command(config, resume=False))
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else bool(stop.code))
    finally:
        os._exit(1)  # whatever came, it must not go on as the tests


def _command(config: Path, resume: bool) -> list[str]:
    return ["visionlora", "train", "--config", str(config), *(["--resume"] if resume else [])]


def _train(command: list[str]) -> None:
    """As a process of its own would, on the files that its descriptors are."""
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)  # a fork of a process with several has none of them, and dies
    sys.argv = command
    main()
