"""Runs of a study that are trained side by side, each in a process of the standard library's pool."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

import torch
from rich.console import Console

from visionlora.errors import InputError
from visionlora.stopping import end_with_parent

_LOOK = 0.2
"""Seconds between two looks at whether the study is to stop."""
Key = TypeVar("Key")
Value = TypeVar("Value")


def side_by_side(
    calls: Mapping[Key, Callable[[Console], Value]], jobs: int, console: Console, stop: Callable[[], None]
) -> Iterator[tuple[Key, Value, float]]:
    """Make calls and yield what each came to, with its seconds: in their order, or as they come from several jobs.

    Args:
        calls: to be picklable where there are several jobs.
        jobs: how many are made at once. Each process has its share of the CPU, and a GPU of its own if there are as
            many.
        console: for a call's progress; nothing is shown of several at once.
        stop: raises if the study is to stop. Calls at work then get SIGTERM, and are waited for.

    Raises:
        InputError: a process was killed; whatever a call or ``stop`` raises.
    """
    if jobs == 1:
        for key, call in calls.items():
            value, seconds = _timed(call, console)
            yield key, value, seconds
            stop()
        return
    context = multiprocessing.get_context("spawn")
    places: SimpleQueue[int] = context.SimpleQueue()
    for place in range(jobs):
        places.put(place)
    with ProcessPoolExecutor(jobs, context, _take_place, (places, jobs)) as pool:
        left = iter(calls.items())
        # No more than are made at once: the pool takes calls ahead, which can't be taken back.
        waiting = {pool.submit(_timed, call): key for key, call in islice(left, jobs)}
        try:
            while waiting:
                done, _ = wait(waiting, _LOOK, FIRST_COMPLETED)
                for future in done:
                    value, seconds = future.result()
                    yield waiting.pop(future), value, seconds
                    waiting |= {pool.submit(_timed, call): key for key, call in islice(left, 1)}
                stop()
        except BrokenProcessPool as error:
            raise InputError(
                "a process of the study was killed, perhaps for memory; --resume goes on, with fewer --jobs if so"
            ) from error
        finally:
            if waiting:
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGTERM)


def _timed(call: Callable[[Console], Value], console: Console | None = None) -> tuple[Value, float]:
    started = time.perf_counter()
    value = call(console or Console(quiet=True))
    return value, time.perf_counter() - started


def _take_place(places: "SimpleQueue[int]", jobs: int) -> None:
    """Make a process one of so many: between two runs it heeds no Ctrl+C, which the study answers."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place = places.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
