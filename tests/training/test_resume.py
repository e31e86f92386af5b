"""A run that is killed and resumed ends bit for bit where an uninterrupted one ends."""

import os
import random
import signal
import time
from pathlib import Path

from helpers.forked import Run
from helpers.runs import make_config, make_images
from helpers.same import assert_same_tensors
from visionlora.config import dump_config
from visionlora.tasks.trained import ADAPTER
from visionlora.training.checkpoint import checkpoints
from visionlora.training.folder import CHECKPOINTS, METRICS

# Everything that draws random numbers or keeps state: dropout, mixup, accumulation, averages, several workers.
SETTINGS = {"epochs": 3, "mixup": 0.2, "accumulate": 2, "checkpoint_every": 2, "patience": 4, "ema": 0.9}


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def kill_after(process: Run, metrics: Path, wanted: int) -> None:
    """SIGKILL as soon as the run has written ``wanted`` lines."""
    while lines(metrics) < wanted:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_three_times_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    workers = 2  # the harder case; scripts/attack_runs.py kills runs without workers, too
    images = make_images(tmp_path / "images", train=10)
    configs, folders = {}, {}
    for name in ("whole", "killed"):
        folders[name] = tmp_path / name
        configs[name] = tmp_path / f"{name}.yaml"
        configs[name].write_text(dump_config(make_config(images, folders[name], workers=workers, **SETTINGS)))
    assert Run(configs["whole"], resume=False).wait() == 0
    total = lines(folders["whole"] / METRICS)

    moments = sorted(random.Random(workers).sample(range(1, total), 3))
    metrics = folders["killed"] / METRICS
    for count, wanted in enumerate(moments):
        kill_after(Run(configs["killed"], resume=count > 0), metrics, wanted)
        assert lines(metrics) < total
    assert Run(configs["killed"], resume=True).wait() == 0

    assert metrics.read_bytes() == (folders["whole"] / METRICS).read_bytes()
    assert_same_tensors(*(folder / ADAPTER for folder in folders.values()))
    whole, killed = (checkpoints(folder / CHECKPOINTS)[-1] / "tensors.safetensors" for folder in folders.values())
    assert_same_tensors(whole, killed)
