"""``visionlora train`` in a process of its own that is forked: what takes seconds to import is there already."""

import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from visionlora.cli.main import main

if sys.platform == "win32":
    pytest.skip("there is no fork", allow_module_level=True)


class Run:
    """Has begun when it is made; the methods are those of ``subprocess.Popen``."""

    def __init__(self, config: Path, resume: bool) -> None:
        self._said, self._path = tempfile.mkstemp(".txt", "said-", config.parent)
        arguments = ["visionlora", "train", "--config", str(config), *(["--resume"] if resume else [])]
        self._process = multiprocessing.get_context("fork").Process(target=self._main, args=(arguments,))
        self._process.start()
        self.pid: int = self._process.pid or 0
        os.close(self._said)

    def _main(self, arguments: list[str]) -> None:
        os.setsid()  # a group of its own, which a test may send a signal to
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(self._said, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = arguments
        main()

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
