"""TensorBoard shows every step of a restarted run once, and in order."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.runs import interrupt, make_config, make_images
from visionlora.sections import RunConfig
from visionlora.training.events import go_on, sizes
from visionlora.training.folder import EVENTS
from visionlora.training.monitor import Monitor
from visionlora.training.run import train
from visionlora.training.state import RunState


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


class Killed(Exception):
    """Nothing more is written, but for what TensorBoard's writer still holds."""


def killed_early(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two steps, before the first checkpoint."""

    def log(self: Monitor, step: int, *args: Any) -> None:
        real(self, step, *args)
        if step == 2:
            raise Killed

    real = Monitor.train_step
    monkeypatch.setattr(Monitor, "train_step", log)
    with pytest.raises(Killed):
        train(config, quiet=True)


def killed_after_evaluation(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are written, and the last checkpoint is that of the same step."""

    def save(self: RunState, metrics: object) -> None:
        raise Killed

    monkeypatch.setattr(RunState, "save_best", save)
    with pytest.raises(Killed):
        train(config, quiet=True)


def stopped(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(config, monkeypatch, step=4)


def with_the_clock_set_back(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(config, monkeypatch, step=4)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 5000)


@pytest.mark.parametrize("end", [killed_early, killed_after_evaluation, stopped, with_the_clock_set_back])
def test_every_step_is_shown_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[RunConfig, pytest.MonkeyPatch], None]
) -> None:
    config = make_config(images, tmp_path / "run", checkpoint_every=6)
    with monkeypatch.context() as patched:
        end(config, patched)
        if end is with_the_clock_set_back:
            train(config, resume=True, quiet=True)
    train(config, resume=True, quiet=True)
    train(config, resume=True, quiet=True)  # a finished one, which has nothing left to do
    events = EventAccumulator(str(tmp_path / "run" / EVENTS), size_guidance={"scalars": 0}).Reload()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert steps["train/loss"] == list(range(1, 13))
    assert steps["val/top1"] == [6, 12]
    assert {len(steps[tag]) for tag in steps if tag.startswith("final/")} == {1}


def test_files_of_the_same_second_and_of_later_ones_keep_their_order(tmp_path: Path) -> None:
    for start in range(4):
        writer = go_on(tmp_path, None, start)
        writer.add_scalar("a", float(start), start)
        writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("a")] == [0.0, 1.0, 2.0, 3.0]
    assert len(sizes(tmp_path)) == 4


def test_without_sizes_nothing_is_removed(tmp_path: Path) -> None:
    """As with checkpoints of older versions; TensorBoard leaves out by itself what is marked as gone."""
    writer = go_on(tmp_path, [], 0)
    for step in range(1, 5):
        writer.add_scalar("a", 0.0, step)
    writer.close()
    before = sizes(tmp_path)
    go_on(tmp_path, None, 2).close()
    assert sizes(tmp_path)[:1] == before
    assert [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("a")] == [1, 2]
