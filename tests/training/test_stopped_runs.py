"""A signal to a run and all its workers ends it with a checkpoint, from which it goes on as if nothing had been."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.forked import Run, train_and_exit
from helpers.runs import COLOURS, make_config, make_images
from helpers.same import assert_same_tensors
from visionlora.config import dump_config
from visionlora.tasks.trained import ADAPTER
from visionlora.training.checkpoint import checkpoints
from visionlora.training.folder import CHECKPOINTS, EVENTS, METRICS, REPORT

# 6 steps an epoch; dropout, accumulation and mixup keep state and draw numbers.
SETTINGS = {"epochs": 2, "batch_size": 4, "accumulate": 2, "mixup": 0.2, "checkpoint_every": 6, "patience": 9}
VALIDATED = 40
"""Large images of each colour, so that there is time to meet an evaluation."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_images(tmp_path_factory.mktemp("images"), train=16)
    generator = np.random.default_rng(1)
    noise = generator.normal(0, 60, (360, 360, 3))
    for name, colour in COLOURS.items():
        picture = Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))
        picture.save(root / "val" / name / "large.png")
        for number in range(VALIDATED):
            os.link(root / "val" / name / "large.png", root / "val" / name / f"large{number}.png")
    return root


def stop(process: Run, number: signal.Signals, moment: Callable[[], bool]) -> str:
    """Send the signal to the group when it is time; what the run said. Its exit code is the signal's."""
    while not moment():
        assert process.poll() is None, process.said()
        time.sleep(0.002)
    os.killpg(process.pid, number)
    said = process.said(timeout=120)
    assert process.poll() == 128 + number, said
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(process.pid, 0)
    return said


def lines(folder: Path, kind: str) -> list[dict[str, object]]:
    path = folder / METRICS
    found = (
        [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")] if path.exists() else []
    )
    return [line for line in found if line["kind"] == kind]


def progress(folder: Path) -> dict[str, int]:
    last = checkpoints(folder / CHECKPOINTS)[-1]
    found: dict[str, int] = json.loads((last / "state.json").read_text())["progress"]
    return found


def test_a_run_stopped_by_three_signals_ends_as_one_that_was_not(tmp_path: Path, images: Path) -> None:
    workers = 2  # the harder case: the signal comes to all of them
    configs, folders = {}, {}
    for name in ("whole", "stopped"):
        folders[name], configs[name] = tmp_path / name, tmp_path / f"{name}.yaml"
        configs[name].write_text(dump_config(make_config(images, folders[name], workers=workers, **SETTINGS)))
    assert Run(configs["whole"], resume=False).said() == ""
    folder, config = folders["stopped"], configs["stopped"]

    # In training: the step that is being taken is the last one.
    said = stop(Run(config, resume=False), signal.SIGTERM, lambda: len(lines(folder, "train")) >= 3)
    step = progress(folder)["step"]
    assert 3 <= step <= 5
    assert said == f"stopped at step {step}; the same command with --resume goes on\n"
    assert not lines(folder, "val")

    # In the first epoch's evaluation, which begins once the checkpoint of the sixth step is written.
    sixth = folder / CHECKPOINTS / "step-00000006-0000"
    said = stop(Run(config, resume=True), signal.SIGHUP, sixth.is_dir)
    assert said == "stopped in the evaluation after step 6; the same command with --resume goes on\n"
    assert (progress(folder)["step"], progress(folder)["epoch"], progress(folder)["batch"]) == (6, 0, 12)
    assert not lines(folder, "val") and not (folder / ADAPTER).exists()

    # In the second epoch.
    said = stop(Run(config, resume=True), signal.SIGINT, lambda: len(lines(folder, "train")) >= 9)
    assert said == f"stopped at step {progress(folder)['step']}; the same command with --resume goes on\n"

    last = Run(config, resume=True)
    assert last.said() == ""
    assert last.poll() == 0
    assert (folder / METRICS).read_bytes() == (folders["whole"] / METRICS).read_bytes()
    reports = [json.loads((one / REPORT).read_text()) for one in folders.values()]
    assert reports[0]["scores"] == reports[1]["scores"]
    assert_same_tensors(*(one / ADAPTER for one in folders.values()))
    ends = [checkpoints(one / CHECKPOINTS)[-1] for one in folders.values()]
    assert ends[0].name == ends[1].name == "step-00000012-0002"
    assert_same_tensors(*(end / "tensors.safetensors" for end in ends))

    # In the last evaluation, of a file that another process wrote.
    written = (folder / REPORT).read_bytes()
    (folder / REPORT).unlink()
    events = len(list((folder / EVENTS).iterdir()))
    said = stop(Run(config, resume=True), signal.SIGINT, lambda: len(list((folder / EVENTS).iterdir())) > events)
    assert said == "stopped in the last evaluation; the same command with --resume goes on\n"
    assert not (folder / REPORT).exists()
    assert Run(config, resume=True).said() == ""
    assert json.loads((folder / REPORT).read_text())["scores"] == json.loads(written)["scores"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudoterminals")
def test_a_terminal_that_is_closed_ends_a_run_with_a_checkpoint(tmp_path: Path, images: Path) -> None:
    import pty

    config, folder = tmp_path / "run.yaml", tmp_path / "run"
    config.write_text(dump_config(make_config(images, folder, workers=2, **{**SETTINGS, "epochs": 40})))
    child, terminal = pty.fork()
    if not child:
        train_and_exit(config)
    shown: list[bytes] = []
    while len(lines(folder, "train")) < 3:
        shown.append(os.read(terminal, 4096))  # else the run would wait for someone to read
        assert os.waitpid(child, os.WNOHANG)[0] == 0, b"".join(shown).decode()
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert progress(folder)["step"] >= 3
