"""Several processes that train together, forked from the tests' own: nothing is imported twice."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from helpers.late_imports import import_all
from visionlora.cli.exit_code import exit_code

Process = Any
_STORES: list[dist.Store] = []


def start_processes(size: int, work: Callable[[int], object]) -> list[Process]:
    """Run ``work(rank)`` in each as torchrun would; its exit code is as the command line has it."""
    import_all()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(size)}
    environment["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    _STORES.append(store)  # for as long as the processes need it

    def run(rank: int) -> None:
        torch.set_num_threads(1)  # a fork of a process with several has none of them, and dies
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        raise SystemExit(exit_code(lambda: work(rank)))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def exit_codes(processes: list[Process], seconds: float = 300) -> list[int | None]:
    """How they ended; who has not by then is killed, and has none."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes
