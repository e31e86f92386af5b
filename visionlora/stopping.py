"""A polite end: to a run signals are requests, which it answers between two batches; all else they end like an error,
so that nothing half written stays.
"""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl+C, a polite kill, and a terminal that was closed."""


class Interrupted(Exception):
    """The run was asked to stop, and its checkpoint is written.

    Args:
        where: in words, as in "at step 7".
        number: of the signal.

    Attributes:
        exit_code: 128 + the signal's number, as shells have it: 130 for Ctrl+C, 143 for SIGTERM, 129 for SIGHUP.
    """

    def __init__(self, where: str, number: int) -> None:
        super().__init__(f"stopped {where}; the same command with --resume goes on")
        self._given = where, number
        self.exit_code = 128 + number

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), self._given  # else it would be made of its message, as it comes from another process


class Stopped(BaseException):
    """A command that is no run was asked to stop. No ``Exception``, so that nobody takes it for a fault of a file.

    Attributes:
        exit_code: as that of ``Interrupted``.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; what was not finished is not kept")
        self.exit_code = 128 + number


class Lost(Exception):
    """One of several processes that train together is gone, and the others can't go on.

    Args:
        why: what was noticed.

    Attributes:
        exit_code: 75, which sysexits.h has for what may go better another time.
    """

    exit_code = 75

    def __init__(self, why: str) -> None:
        super().__init__(
            f"error: a process of the run was lost ({why}), and the others end; the same command with --resume goes "
            "on from the last checkpoint"
        )


class SaidElsewhere(Exception):
    """This process ends, and another one of the run has said why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


@contextmanager
def stopping_raises() -> Iterator[None]:
    """Signals raise ``Stopped`` in the main thread, unless they are ignored, or ``stop_requests`` takes them inside.

    By itself SIGTERM ends a process where it stands, and leaves temporary files behind. SIGHUP, which may come several
    times as a terminal is closed, raises once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        if number not in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise Stopped(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup, or a shell's background job
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_LISTENING: list[list[int]] = []
"""What was asked in each of the ``stop_requests`` that are inside each other."""


@contextmanager
def stop_requests(patience: int = 1) -> Iterator[Callable[[], int]]:
    """Turn signals into a request: what is yielded gives the first one's number, 0 while there is none.

    A second Ctrl+C stops at once, or one more than ``patience``: torchrun passes on what the terminal has sent to all.
    Other signals may come several times, as when a terminal is closed, and change nothing more. Outside of the main
    thread, which alone gets signals, nobody ever asks. What is asked inside of another is asked of the outer one as
    well: a run may end before it looks, and the study that it belongs to must still stop.
    """
    asked: list[int] = []

    def first() -> int:
        return asked[0] if asked else 0

    if threading.current_thread() is not threading.main_thread():
        yield first
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    if before.get(getattr(signal, "SIGHUP", None)) is signal.SIG_IGN:  # nohup: the terminal may go
        del before[signal.SIGHUP]

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        if len(asked) >= patience and number == signal.SIGINT:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        for listening in _LISTENING:
            listening.append(number)

    for number in before:
        signal.signal(number, ask)
    _LISTENING.append(asked)
    try:
        yield first
    finally:
        _LISTENING.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that are started meanwhile never get a signal to stop; this one gets them afterwards at the latest."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Have this process killed when the one that started it ends in whatever way. On Linux; elsewhere nothing is done.

    A forked process holds its parent's connections open: others would wait for a parent that is gone.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""
