"""A polite end of a run: signals are requests, which the loop and evaluations answer between two batches."""

import signal
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
        self.exit_code = 128 + number


@contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Turn signals into a request: what is yielded gives the first one's number, 0 while there is none.

    A second Ctrl+C stops at once. Other signals may come several times, as when a terminal is closed, and change
    nothing more. Outside of the main thread, which alone gets signals, nobody ever asks.
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
        if asked and number == signal.SIGINT:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        asked.append(number)

    for number in before:
        signal.signal(number, ask)
    try:
        yield first
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def orderly_exit() -> Iterator[None]:
    """Signals end the process as an exception does, so that nothing half-written stays, with a shell's exit code.

    Where ``stop_requests`` answers them they are requests. A signal that is ignored, as under nohup, stays so.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, leave)
    try:
        yield
    finally:
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
