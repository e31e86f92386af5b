"""The script that attacks runs, in its short form: one run is killed, and a few files of each kind are damaged."""

import subprocess
import time
from pathlib import Path

import pytest

from attack_runs import main
from attacks import kills, runs
from helpers.forked import Run


class Killable(Run):
    """A forked run in the place of ``subprocess.Popen``'s, which would import for seconds each time."""

    def wait(self, timeout: float | None = None) -> int | None:
        if (code := super().wait(timeout)) is None:
            raise subprocess.TimeoutExpired("visionlora train", timeout or 0)
        return code


def finish(config: Path, resume: bool = False) -> float:
    """As ``attacks.runs.finish``."""
    began, process = time.perf_counter(), Run(config, resume)
    assert process.wait() == 0, process.said()
    return time.perf_counter() - began


def test_a_killed_run_is_the_same_and_damages_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kills, "start", Killable)
    monkeypatch.setattr(kills, "finish", finish)
    command = ["--out", str(tmp_path / "out"), "--tasks", "classification", "--seed", "1"]
    code = main([*command, "--kills", "1", "--damages", "33"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "s: the same" in said
    assert said.count("3 of 3 noticed") == 7
    assert said.count("6 of 6 noticed") == 2  # of a timm folder, which is read in two ways
    assert "0 of 34 attacks did harm" in said


def test_a_run_of_the_script_is_the_command_itself(tmp_path: Path) -> None:
    """What the test above puts forked processes in the place of."""
    process = runs.start(tmp_path / "none.yaml", resume=True)
    _, said = process.communicate()
    assert process.returncode == 2
    assert "none.yaml" in said
