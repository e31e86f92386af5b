"""Runs that are killed at random moments and resumed, against runs that were not."""

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attacks.runs import finish, start, write_config, write_images
from visionlora.tasks.trained import ADAPTER
from visionlora.training.checkpoint import checkpoints
from visionlora.training.folder import CHECKPOINTS, EVENTS, METRICS, REPORT

_SPEEDS = ("train/images_per_s",)
"""Curves of the clock."""


def attack_runs(out: Path, tasks: list[str], kills: int, seed: int) -> int:
    """Print what came of each run; how many were not what they should have been."""
    generator, failed = random.Random(seed), 0
    write_images(out / "images")
    seconds = {task: finish(write_config(out / "images", task, out / f"whole_{task}", 0)) for task in tasks}
    for number in range(kills):
        task, workers = tasks[number % len(tasks)], 2 * (number // len(tasks) % 2)
        folder = out / f"killed_{number}"
        config = write_config(out / "images", task, folder, workers)
        moments, resume = [generator.uniform(0.2, 1.0) * seconds[task] for _ in range(generator.randint(1, 3))], False
        for moment in moments:
            process = start(config, resume)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            resume = folder.exists()
        try:
            finish(config, resume)
            different = differences(out / f"whole_{task}", folder)
        except RuntimeError as error:
            different = [str(error)]
        at = ", ".join(f"{moment:.1f}" for moment in moments)
        print(f"{task}, {workers} workers, killed after {at} s: {'; '.join(different) or 'the same'}", flush=True)
        failed += bool(different)
        if not different:
            shutil.rmtree(folder)
    return failed


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
