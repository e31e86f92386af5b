"""``train.devices``: this very command in several processes on this machine, for whoever does not know torchrun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from visionlora.errors import InputError
from visionlora.sections import TrainSection
from visionlora.stopping import Lost, stop_requests
from visionlora.training.distributed import LAUNCHER
from visionlora.training.started import started_processes

_LOOK, _GRACE = 0.05, 20.0
"""Seconds between two looks at the processes, and how long they have to end by themselves once one has failed."""


def wants_launch(train: TrainSection) -> bool:
    """Whether several processes are asked for, and nothing has started this one as one of them.

    Raises:
        InputError: torchrun has started another number of them.
    """
    started = started_processes()
    if train.devices == 1 or train.devices == started:
        return False
    if started > 1:
        raise InputError(f"train.devices is {train.devices}, and {started} processes were started; leave it out")
    return True


def launch(train: TrainSection) -> int:
    """Start this command ``train.devices`` times, and wait for all. Signals are passed on; the exit code is the run's.

    Raises:
        InputError: there are fewer GPUs.
        Lost: a process was killed.
    """
    _refuse_more_than_there_are(train)
    # The store lives here, for any of the processes may be lost.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    dist.PrefixStore("visionlora", store).set(LAUNCHER, "")
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(train.devices),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL") or "ERROR",  # else how a connection broke
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // train.devices)),
    }
    with stop_requests() as stop:
        children = [
            # In sessions of their own, so that a terminal's Ctrl+C comes to them once, from here.
            subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                start_new_session=True,
            )
            for rank in range(train.devices)
        ]
        try:
            _wait(children, stop)
        finally:
            ended = [child.poll() for child in children]
            for child in children:
                child.kill()
                child.wait()
    for rank, code in enumerate(ended):
        if code is not None and code < 0:
            raise Lost(f"process {rank} of {len(ended)}, killed by {signal.Signals(-code).name}")
    codes = [Lost.exit_code if code is None else code for code in ended]
    return next((code for code in codes if code not in (0, Lost.exit_code)), max(codes))


def _wait(children: "list[subprocess.Popen[bytes]]", stop: Callable[[], int]) -> None:
    """Until all have ended, or one has failed and the others do not end."""
    told, deadline = False, float("inf")
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        if stop() and not told:
            told = True
            for child in children:
                child.send_signal(stop())
        if deadline == float("inf") and any(child.poll() for child in children):
            deadline = time.monotonic() + _GRACE
        time.sleep(_LOOK)


def _refuse_more_than_there_are(train: TrainSection) -> None:
    there = torch.cuda.device_count()
    if train.device in ("auto", "cuda") and torch.cuda.is_available() and there < train.devices:
        gpus = "is 1 GPU" if there == 1 else f"are {there} GPUs"
        raise InputError(f"train.devices is {train.devices}, and there {gpus}; give as many, or train.device=cpu")
