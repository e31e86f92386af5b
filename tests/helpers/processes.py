"""Several processes that train together, forked from the tests' own: nothing is imported twice."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

from visionlora.cli.exit_code import exit_code

Process = Any


def start_processes(size: int, work: Callable[[int], object]) -> list[Process]:
    """Run ``work(rank)`` in each as torchrun would; its exit code is as the command line has it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}

    def run(rank: int) -> None:
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        raise SystemExit(exit_code(lambda: work(rank)))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def exit_codes(processes: list[Process], seconds: float = 120) -> list[int | None]:
    """How they ended; who has not by then is killed, and has none."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes
