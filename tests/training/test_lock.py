"""One process at a time in a run folder, and what a killed one leaves there is no obstacle."""

import errno
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from helpers.forked import Run
from helpers.runs import make_config, make_images
from visionlora.config import dump_config
from visionlora.errors import InputError
from visionlora.files import write_json
from visionlora.training.folder import CHECKPOINTS, FIGURES, METRICS, REPORT
from visionlora.training.lock import LOCK, locked
from visionlora.training.run import train

HOLD = """
import os, sys, time
from pathlib import Path
from visionlora.training.lock import locked
with locked(Path(sys.argv[1])):
    if not os.fork():
        print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


def hold(folder: Path) -> "subprocess.Popen[str]":
    """A process that holds the folder's lock, with a child of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_by_the_number_of_the_first(tmp_path: Path) -> None:
    with locked(tmp_path):
        code = "import sys; from pathlib import Path; from visionlora.training.lock import locked\n"
        code += "with locked(Path(sys.argv[1])): pass"
        second = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert f"process {os.getpid()} on " in second.stderr.splitlines()[-1]
        with pytest.raises(InputError, match="is training in it"), locked(tmp_path):
            pass
    assert not (tmp_path / LOCK).exists()


def test_a_lock_ends_with_its_process_even_if_a_child_lives_on(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        with pytest.raises(InputError, match=f"process {process.pid} on "), locked(tmp_path):
            pass
        process.kill()
        process.wait()
        os.killpg(process.pid, 0)  # the child is there
        assert (tmp_path / LOCK).exists()
        with locked(tmp_path) as note:
            assert note == ""
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_lock_that_was_removed_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking the file, the process that held it has ended, and another one has begun."""
    import fcntl

    real, calls = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(descriptor)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert len(calls) == 2
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_living_run_is_neither_resumed_nor_overwritten(images: Path, tmp_path: Path) -> None:
    folder, config = tmp_path / "run", make_config(images, tmp_path / "run", epochs=40)
    (tmp_path / "run.yaml").write_text(dump_config(config))
    process = Run(tmp_path / "run.yaml", resume=False)
    try:
        while not (folder / METRICS).exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGSTOP)  # it lives and holds the folder, but takes no time
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match=f"process {process.pid} on .* is training in it"):
                train(config, quiet=True, **how)  # type: ignore[arg-type]
        assert process.poll() is None
        assert (folder / METRICS).exists()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert train(make_config(images, folder, epochs=1), overwrite=True, quiet=True).scores
    assert not (folder / LOCK).exists()


def test_where_nothing_can_be_locked_a_run_says_so_and_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    said = StringIO()
    train(make_config(images, tmp_path / "run", epochs=1), console=Console(file=said, width=200))
    assert "can't be locked (Operation not supported)" in said.getvalue()


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}])
def test_what_a_killed_write_left_is_cleared(images: Path, tmp_path: Path, how: dict[str, bool]) -> None:
    folder, config = tmp_path / "run", make_config(images, tmp_path / "run", epochs=1)
    left = [folder / ".adapter.safetensors.ab12cd_3.tmp", folder / f".{REPORT}.ab12cd_3.tmp"]
    if how:
        train(config, quiet=True)
        left += [folder / FIGURES / ".predictions.png.ab12cd_3.tmp", folder / CHECKPOINTS / ".step-00000006-0000.tmp"]
        left[-1].mkdir()
    for path in left:
        if not path.is_dir():
            write_json(path, "half")
    train(config, quiet=True, **how)  # type: ignore[arg-type]
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def test_temporary_files_of_others_are_foreign(images: Path, tmp_path: Path) -> None:
    config = make_config(images, tmp_path / "run", epochs=1)
    train(config, quiet=True)
    theirs = tmp_path / "run" / ".thesis.docx.ab12cd_3.tmp"
    theirs.write_text("theirs")
    with pytest.raises(InputError, match="which no run wrote"):
        train(config, overwrite=True, quiet=True)
    train(config, resume=True, quiet=True)
    assert theirs.read_text() == "theirs"
