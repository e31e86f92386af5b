"""Tiny runs on coloured squares, for the tests of this folder."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from visionlora.config import check_config
from visionlora.sections import RunConfig
from visionlora.stopping import Interrupted
from visionlora.tasks.evaluation import OnBatch, Progress
from visionlora.training.folder import METRICS
from visionlora.training.loop import fit
from visionlora.training.monitor import Monitor
from visionlora.training.run import train
from visionlora.training.state import RunState

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}


def make_images(root: Path, train: int = 8, val: int = 4) -> Path:
    """An image folder of noisy coloured squares, 32 px."""
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.array(colour) + generator.normal(0, 60, (32, 32, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return root


def make_config(root: Path, out: Path, **train: Any) -> RunConfig:
    """A run of a few seconds; ``train`` replaces training settings."""
    settings = {"epochs": 2, "batch_size": 4, "log_every": 1, "checkpoint_every": 2, "lr": 0.01, "head_lr": 0.01}
    return check_config(
        {
            "model": {"name": "test_resnet", "pretrained": False, "img_size": 32, "drop_rate": 0.2},
            "data": {"root": str(root), "workers": train.pop("workers", 0)},
            "lora": {"rank": 2},
            "train": {**settings, **train},
            "out": str(out),
        }
    )


def losses(folder: Path) -> list[float]:
    """A run's training losses, as they were logged."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def interrupt(config: RunConfig, monkeypatch: pytest.MonkeyPatch, step: int = 2) -> None:
    """Train, and press Ctrl+C in this step."""

    def fit_and_press_ctrl_c(state: RunState, monitor: Monitor, stop: Callable[[], int]) -> None:
        training: Any = state.setup.training
        loss, calls = training.loss, []

        def counting(model: nn.Module, batch: dict[str, object]) -> Tensor:
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGINT)
            found: Tensor = loss(model, batch)
            return found

        training.loss = counting
        fit(state, monitor, stop)

    with monkeypatch.context() as patched:
        patched.setattr("visionlora.training.run.fit", fit_and_press_ctrl_c)
        with pytest.raises(Interrupted, match=f"step {step}"):
            train(config, quiet=True)


def counting(done: list[int]) -> Progress:
    """A progress that keeps the numbers that it is told."""

    @contextmanager
    def progress(_description: str, _total: int | None) -> Iterator[OnBatch]:
        yield done.append

    return progress
