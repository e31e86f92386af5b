"""Every byte of a run's files counts: what has changed is named, and the checkpoint before is used."""

import json
import random
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from helpers.runs import make_config, make_images
from helpers.same import assert_same_tensors
from visionlora import checksums
from visionlora.errors import InputError
from visionlora.tasks.trained import ADAPTER, load_trained
from visionlora.training.checkpoint import checkpoints, newest_checkpoint
from visionlora.training.folder import CHECKPOINTS, METRICS
from visionlora.training.run import train


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: checkpoints at its 10th step and at its end, the 12th."""
    return train(make_config(images, tmp_path_factory.mktemp("whole") / "run", checkpoint_every=5), quiet=True).folder


def flip(path: Path, generator: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def cut(path: Path, generator: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: generator.randrange(path.stat().st_size)])


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json", METRICS])
def test_every_damage_to_a_checkpoint_is_noticed(
    whole: Path, tmp_path: Path, file: str, damage: Callable[[Path, random.Random], None]
) -> None:
    generator = random.Random(file)
    newest = checkpoints(whole / CHECKPOINTS)[-1].name
    for number in range(12):
        run = shutil.copytree(whole, tmp_path / str(number))
        damage(run / METRICS if file == METRICS else run / CHECKPOINTS / newest / file, generator)
        try:
            found, faults = newest_checkpoint(run / CHECKPOINTS, run / METRICS)
        except InputError as error:
            assert file == METRICS  # the lines of both
            assert "metrics.jsonl: is damaged" in str(error)
            continue
        assert found
        assert found.path.name == "step-00000010-0001"
        (fault,) = faults
        assert (newest if file != METRICS else METRICS) in fault
        assert "\n" not in fault


def test_a_run_goes_on_from_the_checkpoint_before_and_ends_alike(whole: Path, images: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    newest = checkpoints(run / CHECKPOINTS)[-1]
    flip(newest / "tensors.safetensors", random.Random(0))
    said = StringIO()
    config = make_config(images, run, checkpoint_every=5)
    train(config, resume=True, console=Console(file=said, width=300))
    assert f"{newest.name}: the checkpoint is damaged" in said.getvalue()
    assert "the checkpoint before is used" in said.getvalue()
    assert "resumed from step 10" in said.getvalue()
    assert (run / METRICS).read_bytes() == (whole / METRICS).read_bytes()
    assert_same_tensors(run / ADAPTER, whole / ADAPTER)
    assert_same_tensors(newest / "tensors.safetensors", whole / CHECKPOINTS / newest.name / "tensors.safetensors")
    assert (run / CHECKPOINTS / f"damaged-{newest.name}").is_dir()
    for checkpoint in checkpoints(run / CHECKPOINTS):
        cut(checkpoint / "state.json", random.Random(1))
    with pytest.raises(InputError, match=f"{newest.name}: the checkpoint is damaged.*no other whole one"):
        train(config, resume=True, quiet=True)


def test_a_damaged_adapter_is_refused_by_name_and_not_reported(whole: Path, images: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    generator = random.Random(0)
    content = (run / ADAPTER).read_bytes()
    for number in range(60):
        (run / ADAPTER).write_bytes(content)
        (flip if number % 2 else cut)(run / ADAPTER, generator)
        with pytest.raises(InputError, match=f"{ADAPTER}: (is damaged|not a whole safetensors file)"):
            load_trained(run)
    with pytest.raises(InputError, match=f"{ADAPTER}: (is damaged|not a whole safetensors file)"):
        train(make_config(images, run, checkpoint_every=5), resume=True, quiet=True)


def test_runs_alike_leave_files_alike(whole: Path, images: Path, tmp_path: Path) -> None:
    """Byte for byte; the clock alone differs."""
    again = train(make_config(images, tmp_path / "run", checkpoint_every=5), quiet=True).folder
    assert (again / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes()
    for mine, theirs in zip(*(checkpoints(one / CHECKPOINTS) for one in (again, whole)), strict=True):
        assert (mine / "tensors.safetensors").read_bytes() == (theirs / "tensors.safetensors").read_bytes()


def test_a_checkpoint_without_hashes_is_read(whole: Path, images: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    for checkpoint in checkpoints(run / CHECKPOINTS):
        (checkpoint / "manifest.json").unlink()
        state = json.loads((checkpoint / "state.json").read_text())
        del state["manifest"], state["progress"]["metrics_sha256"]
        (checkpoint / "state.json").write_text(json.dumps(state))
    found, faults = newest_checkpoint(run / CHECKPOINTS, run / METRICS)
    assert found and found.progress.step == 12
    assert faults == []


def test_a_file_is_hashed_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    digest = checksums._digest
    monkeypatch.setattr(checksums, "_digest", lambda path, at: hashed.append(path) or digest(path, at))
    load_trained(whole)
    assert hashed == [whole / ADAPTER]
