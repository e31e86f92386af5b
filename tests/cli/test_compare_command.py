"""``visionlora compare``: one small study, and what is refused."""

from pathlib import Path

import pytest

from helpers.squares import Command
from visionlora.tasks.classification.task import Classification

ONE = ("--methods", "frozen", "--seeds", 1, "--budget", "3steps")


def test_a_study_and_what_it_says(
    visionlora: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classification, "figures", lambda *_given: {})
    out = tmp_path / "study"
    outcome = visionlora("compare", "--config", config, *ONE, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    assert "runs, about 0 min left] frozen, learning rate 0.01: held-out top1" in outcome.out
    assert "Take frozen: with 18 training images it reaches top1" in outcome.out.replace("\n", " ")
    assert {"study.json", "results.json", "results.csv", "runs.csv", "report.md", "figures"} < {
        path.name for path in out.iterdir()
    }
    again = visionlora("compare", "--config", config, *ONE, "--out", out)
    assert again.code == 2 and "holds a study; --resume goes on with it" in again.err
    assert visionlora("compare", "--config", config, *ONE, "--out", out, "--resume").code == 0
    other = visionlora("compare", "--config", config, "train.lr=1", *ONE, "--out", out, "--resume")
    assert other.code == 2 and "another study" in other.err and other.err.count("\n") == 1


def test_several_processes_are_refused(visionlora: Command, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcome = visionlora("compare", "--config", config)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "2 were started; leave torchrun out" in outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "lorra"], "no method 'lorra' (did you mean 'lora'?)"),
        (["--budget", "10"], "--budget 10: give steps or training time"),
        (["--rates", "both"], "--rates both: give apart or together"),
        (["--budget", "1steps", "--methods", "full"], "--budget 1 steps: full, all: one epoch takes 3 steps"),
        (["--shots", "99", "--methods", "full"], "data.shots is 99, and class 'blue' has 6 images to train on"),
        (["--ranks", "four"], "--ranks four: 'four' is no whole number of at least 1"),
        (["--methods", "lora:targets=head"], "--methods lora:targets=head: "),
        (["--out", "{config}"], "is a file; give a folder"),
    ],
)
def test_what_can_not_be_compared(
    visionlora: Command, config: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    given = [option.format(config=config) for option in options]
    outcome = visionlora("compare", "--config", config, "--out", tmp_path / "study", *given)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert words in outcome.err
