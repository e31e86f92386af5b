"""The scripts that train take what ``visionlora train`` takes, and end as it does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from visionlora.cli.configs import shipped_configs

SCRIPTS = Path(__file__).parents[2] / "scripts"
TASKS = ["classification", "detection", "segmentation"]


def run(task: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, SCRIPTS / f"train_{task}.py", *arguments]
    wide = {**os.environ, "COLUMNS": "300"}  # so that the help doesn't wrap
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=wide)


@pytest.mark.parametrize("task", TASKS)
def test_bad_input_is_one_line(task: str) -> None:
    done = run(task, "train.epoch=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "did you mean 'train.epochs'?" in done.stderr


@pytest.mark.parametrize("task", TASKS)
def test_the_default_is_a_shipped_config_of_the_task(task: str) -> None:
    done = run(task, "--help")
    default = done.stdout.split("shipped config's name (")[1].split(")")[0]
    assert done.returncode == 0
    assert default in shipped_configs()
    assert default.startswith(task)
