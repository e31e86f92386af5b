"""Runs of seconds that draw random numbers, keep state, evaluate and write checkpoints often."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from visionlora.config import check_config, dump_config
from visionlora.demo.annotated import write_annotated
from visionlora.demo.base import MEAN, STD, base_path
from visionlora.demo.camera import DAY
from visionlora.demo.scenes import CLASSES, make_scene

BASE = {"checkpoint": str(base_path()), "mean": MEAN, "std": STD}
DAYS = {"train": 2, "val": 1}
"""Scenes of each class."""

MODELS: dict[str, dict[str, Any]] = {
    "classification": {"name": "test_resnet", "img_size": 96, "drop_rate": 0.2},
    "detection": {"name": "fcos", "backbone": "test_resnet", "levels": [3, 4, 5], "fpn_channels": 32, "size": 96},
    "segmentation": {"name": "fpn", "backbone": "test_resnet", "channels": 16, "size": 96},
}
TASKS = tuple(MODELS)
EPOCHS = 3


def write_images(root: Path) -> None:
    """A street by day, for all tasks: root/folders with a folder for each class, root/annotations.json with masks."""
    write_annotated(root, DAY, DAYS, seed=0)
    for seed, (part, per_class) in enumerate(DAYS.items()):
        for index in range(per_class * len(CLASSES)):
            folder = root / "folders" / part / CLASSES[index % len(CLASSES)]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(make_scene(DAY, seed, index).image).save(folder / f"{index:02}.png")


def write_config(images: Path, task: str, out: Path, workers: int, processes: int = 1) -> Path:
    """The YAML file beside the run's folder. Several processes compute on the CPU."""
    days = {part: {"day": [part]} for part in DAYS}
    data: dict[str, Any] = {"annotations": str(images / "annotations.json"), **days}
    if task == "classification":
        data = {"root": str(images / "folders")}
    train = {"epochs": EPOCHS, "batch_size": 4, "accumulate": 2, "log_every": 1, "checkpoint_every": 1, "lr": 5e-3}
    together = {"devices": processes, "device": "cpu"} if processes > 1 else {}
    values = {
        "task": task,
        "model": {**BASE, **MODELS[task]},
        "data": {**data, "workers": workers},
        "lora": {"rank": 2},
        "train": {**train, "warmup_epochs": 0.5, **together},
        "out": str(out),
    }
    path = out.with_suffix(".yaml")
    path.write_text(dump_config(check_config(values)), encoding="utf-8")
    return path


def start(config: Path, resume: bool) -> "subprocess.Popen[str]":
    """``visionlora train``, on one thread."""
    command = [sys.executable, "-m", "visionlora.cli.main", "train", "--config", str(config)]
    return subprocess.Popen(
        [*command, *(["--resume"] if resume else [])],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def started_by(process: "subprocess.Popen[str]") -> list[int]:
    """The processes, by their ranks, that a run of several has started so far. Linux tells."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text(encoding="ascii").split()]


def finish(config: Path, resume: bool = False) -> float:
    """Run to the end; seconds. Raises RuntimeError with what it said if it failed."""
    began = time.perf_counter()
    process = start(config, resume)
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {said.strip()}")
    return time.perf_counter() - began
