"""The scripts that train take what ``visionlora train`` takes, and end as it does."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from visionlora.cli.configs import shipped_configs

SCRIPTS = Path(__file__).parents[2] / "scripts"
TASKS = ["classification", "detection", "segmentation"]


def run(task: str, argument: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code."""
    script = SCRIPTS / f"train_{task}.py"
    monkeypatch.setattr(sys, "argv", [str(script), argument])
    monkeypatch.setenv("COLUMNS", "300")  # so that the help doesn't wrap
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize("task", TASKS)
def test_bad_input_is_one_line(task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(task, "train.epoch=3", monkeypatch) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert "did you mean 'train.epochs'?" in shown.err


@pytest.mark.parametrize("task", TASKS)
def test_the_default_is_a_shipped_config_of_the_task(
    task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(task, "--help", monkeypatch) == 0
    default = capsys.readouterr().out.split("shipped config's name (")[1].split(")")[0]
    assert default in shipped_configs()
    assert default.startswith(task)


def test_a_script_runs_by_its_path_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "train_classification.py"), "train.epoch=3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
