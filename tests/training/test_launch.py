"""``train.devices`` starts this command several times, and ends as it ends; torchrun does the same."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from helpers.runs import make_config, make_images
from visionlora.config import dump_config
from visionlora.errors import InputError
from visionlora.sections import TrainSection
from visionlora.stopping import Lost
from visionlora.training.folder import METRICS, REPORT
from visionlora.training.launch import launch, wants_launch
from visionlora.training.run import train

TWO = TrainSection(devices=2, device="cpu")


def command(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """What this program was started with: no training, but ``code``, which knows its rank."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", f"import os, time; rank = int(os.environ['RANK']); {code}"])


def test_all_get_their_places_and_end_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
    command(monkeypatch, f"open({str(tmp_path)!r} + f'/{{rank}}', 'w').write(' '.join(map(os.environ.get, {names})))")
    assert launch(TWO) == 0
    threads = max(1, (os.cpu_count() or 1) // 2)
    assert [(tmp_path / name).read_text() for name in "01"] == [f"{i} {i} 2 127.0.0.1 {threads}" for i in range(2)]


@pytest.mark.parametrize(("codes", "expected"), [((2, 75), 2), ((75, 2), 2), ((0, 143), 143), ((75, 75), 75)])
def test_the_exit_code_is_that_of_the_process_that_knows_why(
    monkeypatch: pytest.MonkeyPatch, codes: tuple[int, int], expected: int
) -> None:
    command(monkeypatch, f"os._exit({codes}[rank])")
    assert launch(TWO) == expected


def test_a_killed_process_is_named_and_who_does_not_end_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("visionlora.training.launch._GRACE", 0.1)
    said = f"os.mkdir({str(tmp_path)!r} + f'/{{os.getpid()}}')"
    both = f"any(time.sleep(0.02) for _ in iter(lambda: len(os.listdir({str(tmp_path)!r})), 2))"
    command(monkeypatch, f"{said}; {both}; rank and os.kill(os.getpid(), 9); time.sleep(1000)")
    with pytest.raises(Lost, match="process 1 of 2, killed by SIGKILL") as lost:
        launch(TWO)
    assert lost.value.exit_code == 75
    processes = [int(folder.name) for folder in tmp_path.iterdir()]
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ChildProcessError):  # ended, and waited for
            os.waitpid(process, os.WNOHANG)


def test_a_signal_is_passed_on_once_to_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Each waits for a signal that comes when both are there; a second one would kill it.
    heard = "import signal; signal.signal(15, signal.SIG_DFL); os._exit(signal.sigwait({15}) + 128)"
    ready = (
        f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); open({str(tmp_path)!r} + f'/{{rank}}', 'w')"
    )
    command(monkeypatch, f"{ready}; {heard}")
    real = os.getpid()
    watch = (
        "import os, sys, time\nwhile len(os.listdir(sys.argv[1])) < 2: time.sleep(0.02)\nos.kill(int(sys.argv[2]), 15)"
    )
    sender = subprocess.Popen([sys.executable, "-c", watch, str(tmp_path), str(real)])
    assert launch(TWO) == 128 + signal.SIGTERM
    assert sender.wait() == 0


def test_who_has_started_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not wants_launch(TrainSection()) and wants_launch(TWO)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not wants_launch(TrainSection()) and not wants_launch(TWO)
    with pytest.raises(InputError, match=r"train.devices is 3, and 2 processes were started; leave it out"):
        wants_launch(TrainSection(devices=3))


def test_fewer_gpus_than_asked_for_and_a_program_of_ones_own_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"train.devices is 2, and there is 1 GPU; give as many, or train.device=cpu"):
        launch(TrainSection(devices=2))
    with pytest.raises(InputError, match="is for the command line; start a program of your own with torchrun"):
        train(make_config(tmp_path, tmp_path / "run", devices=2))


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_torchrun_trains_with_the_package_as_a_module(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    images = make_images(tmp_path / "images", train=3)
    config.write_text(dump_config(make_config(images, tmp_path / "run", epochs=1, workers=1)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    run = subprocess.run(
        [*torchrun, "-m", "visionlora", "train", "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("2 processes share each batch of 4 images, 2 each\n") == 1
    assert run.stdout.count("parameters trained") == 1
    assert (tmp_path / "run" / REPORT).is_file() and (tmp_path / "run" / METRICS).read_text().count("\n") == 3
