"""Runs that are killed at random moments and resumed, against runs that were not."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attacks.runs import finish, start, started_by, write_config, write_images
from visionlora.stopping import Lost
from visionlora.tasks.trained import ADAPTER
from visionlora.training.checkpoint import checkpoints
from visionlora.training.folder import CHECKPOINTS, EVENTS, METRICS, REPORT

_SPEEDS = ("train/images_per_s",)
"""Curves of the clock."""

_PATIENCE = 30.0
"""Seconds that the others have to end when one of several processes is killed."""


def attack_runs(out: Path, tasks: list[str], kills: int, seed: int, processes: int = 1) -> int:
    """Print what came of each run; how many were not what they should have been. Of several processes that train a
    run together one is killed, or all.
    """
    generator, failed = random.Random(seed), 0
    write_images(out / "images")
    wholes = {task: write_config(out / "images", task, out / f"whole_{task}", 0, processes) for task in tasks}
    seconds = {task: finish(config) for task, config in wholes.items()}
    for number in range(kills):
        task, workers = tasks[number % len(tasks)], 2 * (number // len(tasks) % 2)
        folder = out / f"killed_{number}"
        config = write_config(out / "images", task, folder, workers, processes)
        different: list[str] = []
        told: list[str] = []
        while not told:
            shutil.rmtree(folder, ignore_errors=True)
            for _ in range(generator.randint(1, 3)):
                moment, whom = generator.uniform(0.2, 1.0) * seconds[task], _all_or_one(generator, processes)
                resume, began = folder.exists(), time.perf_counter()
                process = start(config, resume)
                try:
                    process.wait(moment)
                    if not resume:
                        seconds[task] = time.perf_counter() - began  # the machine is quicker than it was
                        break
                except subprocess.TimeoutExpired:
                    told.append(f"{moment:.1f} s" + (f" ({len(whom)} of {processes})" if processes > 1 else ""))
                    different += _kill(process, whom, processes)
        try:
            finish(config, resume=folder.exists())
            different += differences(out / f"whole_{task}", folder)
        except RuntimeError as error:
            different.append(str(error))
        print(
            f"{task}, {workers} workers, killed after {', '.join(told)}: {'; '.join(different) or 'the same'}",
            flush=True,
        )
        failed += bool(different)
        if not different:
            shutil.rmtree(folder)
    return failed


def _all_or_one(generator: random.Random, processes: int) -> list[int]:
    """Ranks."""
    everyone = list(range(processes))
    return everyone if processes == 1 or generator.random() < 0.5 else [generator.choice(everyone)]


def _kill(process: "subprocess.Popen[str]", whom: Sequence[int], processes: int) -> list[str]:
    """Kill these of a run's processes; what is wrong with how the others end."""
    ranks = started_by(process) if processes > 1 else []
    if len(whom) == processes or len(ranks) < processes:
        process.kill()  # before those that it has started, for it would tell the others
        for pid in ranks:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        return []
    os.kill(ranks[whom[0]], signal.SIGKILL)
    try:
        _, said = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        _kill(process, range(processes), processes)
        return [f"process {whom[0]} was killed, and {_PATIENCE:g} s later the others had not ended"]
    if process.returncode in (0, Lost.exit_code) and "Traceback" not in said:  # 0: it had done its part
        return []
    return [f"process {whom[0]} was killed, and the others ended with {process.returncode}: {said.strip()}"]


def differences(whole: Path, killed: Path) -> list[str]:
    """What of a run is not as it should be."""
    found = []
    last = [checkpoints(folder / CHECKPOINTS)[-1] / "tensors.safetensors" for folder in (whole, killed)]
    pairs = {name: (whole / name, killed / name) for name in (METRICS, ADAPTER)} | {"the last checkpoint": tuple(last)}
    for name, (mine, theirs) in pairs.items():
        if mine.read_bytes() != theirs.read_bytes():
            found.append(f"{name} differs")
    if scores(whole) != scores(killed):
        found.append("the report's scores differ")
    if curves(whole) != curves(killed):
        found.append("TensorBoard's curves differ")
    if left := [path.name for path in killed.rglob("*") if path.name.endswith(".tmp") or path.name == "run.lock"]:
        found.append(f"{', '.join(left)} is left")
    return found


def scores(folder: Path) -> Any:
    """Of the report."""
    return json.loads((folder / REPORT).read_text(encoding="utf-8"))["scores"]


def curves(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """Tag -> (step, value) as text, since a curve may have no number."""
    events = EventAccumulator(str(folder / EVENTS), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in _SPEEDS]
    return {tag: [(event.step, repr(event.value)) for event in events.Scalars(tag)] for tag in tags}
