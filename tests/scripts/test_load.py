"""``scripts/benchmark.py load``: a line for each kind of work, all of which is done."""

from collections.abc import Callable
from typing import Any

import pytest

from benchmark import main
from benchmarks import load


def test_it_starts_checks_saves_frames_and_predicts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def here(work: Callable[..., Any], *given: Any) -> tuple[float, float]:
        done.append(work.__name__)
        return load._measured(work, *given)

    monkeypatch.setattr(load, "apart", here)  # a process of its own would import for seconds
    assert main(["load", "--images", "50", "--footage", "6", "--frames", "9"]) == 0
    assert done == ["start", "start", "check", "check", "save_frames", "save_frames", "predict_video"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[:-3] for row in rows] == [
        ["start", "classification", "50", "images"],
        ["start", "detection", "50", "images"],
        ["check", "class", "folders", "50", "images"],
        ["check", "COCO", "50", "images"],
        ["frames", "--near", "-1", "6", "frames"],
        ["frames", "--near", "8", "6", "frames"],
        ["predict", "9", "frames"],
    ]
    assert all(float(row[-1]) > 50 for row in rows)  # MB
