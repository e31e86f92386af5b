"""Where memory runs out, a step is done again in smaller parts, and comes to the same."""

import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.runs import losses, make_config, make_images
from helpers.segmentation_runs import make_masks, make_segmentation_config
from helpers.stopping import ctrl_c_in_loss
from visionlora.config import check_config, load_config
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.stopping import Interrupted
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.evaluation import score
from visionlora.tasks.memory import out_of_memory
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained
from visionlora.training.batch_size import UNTRIED, largest_that_fits
from visionlora.training.checkpoint import Progress, checkpoints, read_checkpoint
from visionlora.training.folder import CHECKPOINTS, CONFIG, METRICS
from visionlora.training.loop import fit
from visionlora.training.monitor import Monitor
from visionlora.training.run import run_to_try, train
from visionlora.training.state import RunState

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), train=4, val=2)


def limited(loss: Callable[..., Tensor], most: int, first: int, sizes: list[int]) -> Callable[..., Tensor]:
    """The loss, whose backward pass fails on its way with more images than ``most``, from the ``first`` call on."""

    def fail_once(parameter: Tensor) -> None:
        def fail(_gradient: Tensor) -> None:
            hook.remove()
            raise FULL

        hook = parameter.register_hook(fail)

    def found(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        sizes.append(len(batch["image"]))
        if sizes[-1] > most and len(sizes) >= first:
            torch.rand(3), random.random(), np.random.rand()
            fail_once(next(parameter for parameter in model.parameters() if parameter.requires_grad))
        return loss(model, batch)

    return found


def with_memory_for(
    most: int, monkeypatch: pytest.MonkeyPatch, first: int = 1, micro_batch: int = 0
) -> tuple[list[int], io.StringIO, Console]:
    """Runs from now on: the images of each call of the loss, what is said, and where."""
    sizes: list[int] = []

    def fit_in_it(state: RunState, monitor: Monitor, stop: Callable[[], int]) -> None:
        training: Any = state.setup.training
        training.loss = limited(training.loss, most, first, sizes)
        state.progress.micro_batch = micro_batch or state.progress.micro_batch
        fit(state, monitor, stop)

    monkeypatch.setattr("visionlora.training.run.fit", fit_in_it)
    said = io.StringIO()
    return sizes, said, Console(file=said, width=300)


def last(folder: Path) -> tuple[Progress, dict[str, Tensor]]:
    found = read_checkpoint(checkpoints(folder / CHECKPOINTS)[-1])
    return found.progress, found.tensors


def config_of(task: str, root: Path, out: Path) -> RunConfig:
    settings: dict[str, Any] = {"accumulate": 2, "log_every": 1, "epochs": 1, "lr": 1e-3, "head_lr": 1e-3}
    if task == "detection":
        return make_detection_config(make_scenes(root), out, {"name": "retinanet"}, **settings)
    if task == "segmentation":
        return make_segmentation_config(make_masks(root), out, **settings)
    config = make_config(root if root.exists() else make_images(root, train=4, val=2), out, **settings)
    return config.model_copy(update={"model": config.model.model_copy(update={"drop_rate": 0.0})})


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_a_step_in_parts_is_the_whole_step(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out in the second batch of the first step."""
    whole = train(config_of(task, tmp_path / "data", tmp_path / "whole"), quiet=True)
    sizes, said, console = with_memory_for(2, monkeypatch, first=2)
    parts = train(config_of(task, tmp_path / "data", tmp_path / "parts"), console=console)
    assert (sizes[:2], set(sizes[2:])) == ([4, 4], {2})
    assert said.getvalue().count("out of memory with 4 images at a time: the step is done again with 2, as are") == 1
    assert losses(parts.folder) == pytest.approx(losses(whole.folder), rel=1e-3)
    progress, tensors = last(parts.folder)
    assert progress.micro_batch == 2
    moments = {name: value for name, value in last(whole.folder)[1].items() if name.endswith("/exp_avg")}
    assert moments
    for name, expected in moments.items():  # of the gradients
        assert (tensors[name] - expected).norm() <= 0.02 * expected.norm() + 1e-6


def test_what_failed_leaves_no_trace(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout draws the same numbers, BatchNorm has seen each image once: as if the parts had been small before."""
    found = []
    for micro_batch, first in ((2, 99), (0, 2)):
        sizes, _, _ = with_memory_for(2, monkeypatch, first, micro_batch)
        config = make_config(images, tmp_path / str(micro_batch), accumulate=2)
        config = config.model_copy(update={"lora": replace(config.lora, batchnorm="train")})
        folder = train(config, quiet=True).folder
        assert (max(sizes) == 2) == (micro_batch == 2)
        found.append((losses(folder), last(folder)[1]))
    (expected_losses, expected), (seen_losses, seen) = found
    assert seen_losses == expected_losses
    assert seen.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in seen.items())


def test_resume_begins_with_the_smaller_parts(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory_for(2, monkeypatch)
    whole = train(make_config(images, tmp_path / "whole"), quiet=True).folder
    config = make_config(images, tmp_path / "stopped")
    with ctrl_c_in_loss(monkeypatch, ClassificationTraining, 6), pytest.raises(Interrupted):
        train(config, quiet=True)
    sizes, said, console = with_memory_for(2, monkeypatch)
    train(config, resume=True, console=console)
    assert set(sizes) == {2}
    assert "out of memory" not in said.getvalue()
    assert (tmp_path / "stopped" / METRICS).read_bytes() == (whole / METRICS).read_bytes()


@pytest.mark.parametrize(("batchnorm", "least"), [("frozen", 1), ("train", 2)])
def test_where_no_part_fits_one_line_says_so(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batchnorm: str, least: int
) -> None:
    sizes, _, _ = with_memory_for(0, monkeypatch)
    config = make_config(images, tmp_path / "run")
    config = config.model_copy(update={"lora": replace(config.lora, batchnorm=batchnorm)})
    with pytest.raises(InputError, match=rf"out of memory with {least} image.*smaller images.*Tried to allocate"):
        train(config, quiet=True)
    assert sizes == [size for size in (4, 2, 1) if size >= least]


def test_another_error_is_none_of_memory(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Tensor:
        raise RuntimeError("something else")

    monkeypatch.setattr(ClassificationTraining, "loss", fail)
    with pytest.raises(RuntimeError, match="something else"):
        train(make_config(images, tmp_path / "run"), quiet=True)


def test_what_torch_says_on_a_cpu_is_understood() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(error.value)
    assert out_of_memory(FULL) and not out_of_memory(MemoryError()) and not out_of_memory(RuntimeError("x"))


def test_an_evaluation_begins_again_with_half(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(images, tmp_path / "run", epochs=1)
    trained = load_trained(train(config, quiet=True).folder)
    data = task_of(config.task).images(config, "", trained.classes).data
    expected = score(trained, data, 1).scores()
    sizes: list[int] = []
    fails = [2]

    def narrow(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.append(len(inputs[0]))
        if len(sizes) in fails:
            raise FULL

    trained.model.register_forward_pre_hook(narrow)
    with pytest.warns(UserWarning, match="begins again with 2 images"):
        found = score(trained, data, 4).scores()
    assert found == pytest.approx(expected, abs=1e-6)  # the first batch is not counted twice
    assert sizes == [4, 2, 2, 2, 2]
    fails[:] = range(99)
    with pytest.warns(UserWarning), pytest.raises(InputError, match="out of memory in an evaluation, with one image"):
        score(trained, data, 4)


@pytest.mark.parametrize(("most", "found"), [(1, 1), (5, 4), (99, 8)])
def test_the_largest_power_of_two_that_fits(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, found: int
) -> None:
    """Of 12 images."""
    plain: Any = ClassificationTraining.loss

    def narrow(self: ClassificationTraining, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        if len(batch["image"]) > most:
            raise FULL
        return plain(self, model, batch)  # type: ignore[no-any-return]

    monkeypatch.setattr(ClassificationTraining, "loss", narrow)
    config = make_config(images, tmp_path / "run", batch_size="auto")
    assert largest_that_fits(config, lambda tried: run_to_try(tried, torch.device("cpu"))) == found
    most = 0
    with pytest.raises(InputError, match="not one image fits into the memory of cpu"):
        largest_that_fits(config, lambda tried: run_to_try(tried, torch.device("cpu")))


def test_a_number_stands_in_the_runs_config_and_resume_keeps_it(images: Path, tmp_path: Path) -> None:
    config = make_config(images, tmp_path / "run", batch_size="auto", epochs=1)
    said = io.StringIO()
    train(config, console=Console(file=said, width=300))
    assert f"train.batch_size=auto: {UNTRIED} images; how many fit is tried on GPUs alone" in said.getvalue()
    assert load_config(tmp_path / "run" / CONFIG).train.batch_size == UNTRIED
    path = tmp_path / "run" / CONFIG
    path.write_text(path.read_text().replace(f"batch_size: {UNTRIED}", "batch_size: 4"))
    train(config, resume=True, quiet=True)  # a run that began with 4
    assert load_config(path).train.batch_size == 4
    values = config.model_dump(mode="json")
    assert values["train"]["batch_size"] == "auto"
    assert check_config(values) == config
