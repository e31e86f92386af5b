"""Images that can't be read any more while a run goes on: left out by name, up to a share; never in silence."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.runs import make_config, make_images
from helpers.same import assert_same_tensors
from helpers.stopping import ctrl_c_in_loss
from visionlora.data.annotations.split import load_annotated_split
from visionlora.data.images import examine_images, passing
from visionlora.data.leaving_out import Unreadable
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.stopping import Interrupted
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import ADAPTER
from visionlora.training import checkpoint
from visionlora.training.checkpoint import checkpoints, read_checkpoint
from visionlora.training.folder import CHECKPOINTS, METRICS, REPORT
from visionlora.training.run import train


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", train=4, val=2)


def cut(path: Path) -> bytes:
    """Cut a file in half; what it was."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return content


def files_of(config: RunConfig, epoch: int) -> list[list[Path]]:
    """The files of each batch."""
    setup = task_of(config.task).set_up(config)
    return [[setup.train.paths[index] for _, index in batch] for batch in setup.training.train_batches(epoch)]  # type: ignore[attr-defined]


def at_loss(monkeypatch: pytest.MonkeyPatch, call: int, act: Callable[[], object]) -> list[int]:
    """Do something at a call of the loss; the sizes of all batches."""
    plain: Any = ClassificationTraining.loss
    sizes: list[int] = []

    def loss(self: ClassificationTraining, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        sizes.append(len(batch["image"]))
        if len(sizes) == call:
            act()
        found: Tensor = plain(self, model, batch)
        return found

    monkeypatch.setattr(ClassificationTraining, "loss", loss)
    return sizes


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_what_can_be_read_of_it(images: Path, tmp_path: Path, workers: int) -> None:
    training = task_of("classification").set_up(make_config(images, tmp_path / "run", workers=workers)).training
    keys = training.train_batches(0)
    (expected,) = training.train_loader([keys[0][1:]])
    path = training.train_set.path_of(keys[0][0][1])  # type: ignore[attr-defined]
    cut(path)
    found, whole, empty = training.train_loader([keys[0], keys[1], keys[0][:1]])
    (missing,) = found.pop("unreadable")
    assert missing.index == keys[0][0][1] and missing.reason.startswith(f"{path}: can't be decoded")
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert "unreadable" not in whole and len(whole["image"]) == 4
    assert len(empty["image"]) == 0 and [type(one) for one in empty["unreadable"]] == [Unreadable]


def test_an_unreadable_image_is_named_counted_and_not_tried_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(images, tmp_path / "run", max_unreadable=0.1)
    bad = files_of(config, 0)[1][2]
    whole: list[bytes] = []
    sizes = at_loss(monkeypatch, 1, lambda: whole.append(cut(bad)))
    at_loss(monkeypatch, 3, lambda: bad.write_bytes(whole[0]))  # back again, and left out all the same
    said = io.StringIO()
    result = train(config, console=Console(file=said, width=400))
    assert sizes[:3] == [4, 3, 4] and sorted(sizes[3:]) == [3, 4, 4]
    (line,) = lines(result.folder, "unreadable")
    assert (line["step"], line["epoch"]) == (1, 0)
    assert line["reason"].startswith(f"{bad}: can't be decoded")
    assert said.getvalue().count(f"{line['reason']}; the run goes on without it") == 1
    assert "1 training images could not be read to the end" in said.getvalue()
    assert result.unreadable == json.loads((result.folder / REPORT).read_text())["unreadable"] == [line["reason"]]


@pytest.mark.parametrize("stop", [3, 5])
def test_a_run_resumes_bit_for_bit_with_the_file_still_broken(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Missed in step 2; stopped in the same epoch and in the next."""
    config = make_config(images, tmp_path / "stopped", max_unreadable=0.1)
    bad = files_of(config, 0)[1][0]
    content = bad.read_bytes()
    with monkeypatch.context() as patched:
        at_loss(patched, 1, lambda: cut(bad))
        whole = train(make_config(images, tmp_path / "whole", max_unreadable=0.1), quiet=True).folder
    bad.write_bytes(content)
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        at_loss(patched, 1, lambda: cut(bad))
        with ctrl_c_in_loss(patched, ClassificationTraining, stop):
            train(config, quiet=True)
    with pytest.raises(InputError, match="1 image can't be read"):
        task_of("classification").set_up(config)
    read: list[Path] = []
    plain = checkpoint.load_file
    monkeypatch.setattr(checkpoint, "load_file", lambda path: read.append(path) or plain(path))  # type: ignore[func-returns-value]
    train(config, resume=True, quiet=True)
    assert len(read) == 1  # the images are known without it
    assert (tmp_path / "stopped" / METRICS).read_bytes() == (whole / METRICS).read_bytes()
    assert_same_tensors(tmp_path / "stopped" / ADAPTER, whole / ADAPTER)


def test_too_many_stop_the_run_with_a_checkpoint_and_are_read_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a network drive is gone: all of the second and the third batch."""
    config = make_config(images, tmp_path / "run", max_unreadable=0.1, epochs=1)
    gone = [path for batch in files_of(config, 0)[1:] for path in batch]
    away = tmp_path / "away"

    def leave() -> None:
        for number, path in enumerate(gone):
            shutil.move(path, away.with_name(f"away{number}"))

    with monkeypatch.context() as patched, pytest.raises(InputError) as error:
        at_loss(patched, 1, leave)
        train(config, quiet=True)
    assert str(error.value).startswith("4 of 12 training images can't be read any more, and the share that may be")
    assert f"{gone[0]}: no such file" in str(error.value) and "--resume" in str(error.value)
    newest = checkpoints(tmp_path / "run" / CHECKPOINTS)[-1]
    progress = read_checkpoint(newest).progress
    assert (progress.batch, progress.step, progress.unreadable) == (2, 2, [])
    with pytest.raises(InputError, match="another number of images \\(12, now 4\\)"):
        train(config, resume=True, quiet=True)
    for number, path in enumerate(gone):
        shutil.move(away.with_name(f"away{number}"), path)
    assert train(config, resume=True, quiet=True).unreadable == []
    assert [line["step"] for line in lines(tmp_path / "run", "train")] == [1, 2, 3]


def test_a_step_without_any_image_is_none(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(images, tmp_path / "run", max_unreadable=1, epochs=1, checkpoint_every=1)
    second = files_of(config, 0)[1]
    sizes = at_loss(monkeypatch, 1, lambda: [cut(path) for path in second])
    folder = train(config, quiet=True).folder
    assert sizes == [4, 4]
    losses = [line["loss"] for line in lines(folder, "train")]
    assert [loss is None for loss in losses] == [False, True, False]


@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_what_is_left_of_a_batch_is_enough_for_batchnorm(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batchnorm: str
) -> None:
    """At 32 px the last maps have one pixel: a variance needs two images."""
    config = make_config(images, tmp_path / "run", max_unreadable=1, epochs=1)
    values = config.model_dump(mode="json")
    config = type(config).model_validate({**values, "lora": {**values["lora"], "batchnorm": batchnorm}})
    second = files_of(config, 0)[1]
    sizes = at_loss(monkeypatch, 1, lambda: [cut(path) for path in second[1:]])
    train(config, quiet=True)
    assert sizes == ([4, 1, 4] if batchnorm == "frozen" else [4, 4])


def test_an_epoch_is_not_scored_on_fewer_images(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(make_config(images, tmp_path / "whole"), quiet=True).folder
    config = make_config(images, tmp_path / "stopped")
    bad = sorted((images / "val").rglob("*.png"))[3]
    content: list[bytes] = []
    with monkeypatch.context() as patched, pytest.raises(InputError) as error:
        at_loss(patched, 6, lambda: content.append(cut(bad)))
        train(config, quiet=True)
    assert str(error.value).startswith(f"{bad}: can't be decoded") and "scored on all images" in str(error.value)
    assert checkpoints(tmp_path / "stopped" / CHECKPOINTS)[-1].name == "step-00000006-0001"
    bad.write_bytes(content[0])
    read: list[Path] = []
    plain = checkpoint.load_file
    monkeypatch.setattr(checkpoint, "load_file", lambda path: read.append(path) or plain(path))  # type: ignore[func-returns-value]
    train(config, resume=True, quiet=True)
    assert len(read) == 1  # the images are known without it
    assert (tmp_path / "stopped" / METRICS).read_bytes() == (whole / METRICS).read_bytes()


def test_a_file_that_was_left_out_passes_with_the_size_it_says(tmp_path: Path) -> None:
    """So that boxes are checked against it as before."""
    data = make_detection_config(make_scenes(tmp_path / "scenes"), tmp_path / "run").data
    before = load_annotated_split(data)
    path = before.train.images[3].path
    cut(path)
    with pytest.raises(InputError, match="can't be decoded"):
        load_annotated_split(data)
    with passing([path]):
        assert load_annotated_split(data).train == before.train
        path.write_bytes(b"\x89PNG")
        assert examine_images([path])[0].reason
    assert examine_images([path])[0].reason


def test_the_newest_checkpoint_that_can_be_read_says_what_was_left_out(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False)
    assert checkpoint.unreadable_images(tmp_path) == []
    for step, name in enumerate(("old.png", "new.png")):
        entry = {"index": 0, "epoch": 0, "files": [name], "reason": name}
        progress = checkpoint.Progress(step=step, unreadable=[entry])
        checkpoint.save_checkpoint(tmp_path, progress, model, optimizer, scaler, "base")
    assert checkpoint.unreadable_images(tmp_path) == [Path("new.png")]
    cut(checkpoints(tmp_path)[-1] / "state.json")
    assert checkpoint.unreadable_images(tmp_path) == [Path("old.png")]
