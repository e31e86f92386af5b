"""The script that attacks runs, in its short form: a run is killed, and a few files of each kind are damaged."""

import subprocess
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from attack_runs import main
from attacks import kills, runs
from helpers.forked import Run
from helpers.processes import start_processes
from visionlora.cli.train import train


class Killable(Run):
    """A forked run in the place of ``subprocess.Popen``'s, which would import for seconds each time."""

    def wait(self, timeout: float | None = None) -> int | None:
        if (code := super().wait(timeout)) is None:
            raise subprocess.TimeoutExpired("visionlora train", timeout or 0)
        return code


def finish(config: Path, resume: bool = False) -> float:
    """As ``attacks.runs.finish``."""
    process, began = Run(config, resume), time.perf_counter()
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
    assert " s: the same" in said
    assert said.count("3 of 3 noticed") == 7
    assert said.count("6 of 6 noticed") == 2  # of a timm folder, which is read in two ways
    assert "0 of 34 attacks did harm" in said


class Several:
    """Two forked ones in the place of ``train.devices``'s."""

    def __init__(self, config: Path, resume: bool) -> None:
        self.ranks = start_processes(2, lambda _rank: train(str(config), [], resume, False))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> None:
        deadline = time.monotonic() + (timeout or 300)
        for rank in self.ranks:
            rank.join(max(0.0, deadline - time.monotonic()))
        if any(rank.is_alive() for rank in self.ranks):
            raise subprocess.TimeoutExpired("visionlora train", timeout or 0)
        self.returncode = max(rank.exitcode for rank in self.ranks)

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        self.wait(timeout)
        return None, ""

    def kill(self) -> None:
        """Nothing has started them."""


def finish_several(config: Path, resume: bool = False) -> float:
    process, began = Several(config, resume), time.perf_counter()
    process.wait()
    assert process.returncode == 0
    return time.perf_counter() - began


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_of_which_one_or_both_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "EPOCHS", 1)
    monkeypatch.setattr(kills, "start", Several)
    monkeypatch.setattr(kills, "finish", finish_several)
    monkeypatch.setattr(kills, "started_by", lambda process: [rank.pid for rank in process.ranks])
    command = ["--out", str(tmp_path / "out"), "--tasks", "classification", "--processes", "2"]
    code = main([*command, "--kills", "1", "--damages", "0", "--seed", "1"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "0 of 1 attacks did harm" in said
    assert " s (1 of 2): the same" in said


def test_a_run_of_the_script_is_the_command_itself(tmp_path: Path) -> None:
    """What the test above puts forked processes in the place of."""
    process = runs.start(tmp_path / "none.yaml", resume=True)
    _, said = process.communicate()
    assert process.returncode == 2
    assert "none.yaml" in said
