"""What a run's time goes into."""

import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from helpers.runs import make_config, make_images
from visionlora.training import stopwatch
from visionlora.training.run import train
from visionlora.training.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is."""
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    return now


def test_laps_add_up_by_name(clock: list[float]) -> None:
    watch = Stopwatch()
    for seconds, name in ((3.0, "forward"), (5.0, "backward"), (2.0, "forward")):
        clock[0] += seconds
        watch.lap(name)
    clock[0] += 100
    watch.restart()
    watch.lap("logging")
    assert watch.seconds == {"forward": 5.0, "backward": 5.0, "logging": 0.0}
    assert str(watch) == "forward 50%, backward 50%"


def test_a_run_says_where_its_time_went(tmp_path: Path) -> None:
    shown = StringIO()
    began = time.perf_counter()
    config = make_config(make_images(tmp_path / "images"), tmp_path / "run")
    result = train(config, console=Console(file=shown, width=300))
    parts = {"data", "forward", "backward", "optimizer", "logging", "evaluation", "checkpoints"}
    assert result.spent.keys() == parts
    assert all(seconds > 0 for seconds in result.spent.values())
    assert sum(result.spent.values()) < time.perf_counter() - began
    assert "%, " in shown.getvalue().splitlines()[-1]
