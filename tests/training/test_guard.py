"""A loss or gradient that is not finite leaves everything as it was, is named, and stops the run if it stays."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.runs import make_config, make_images
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.stopping import Interrupted
from visionlora.training.checkpoint import checkpoints
from visionlora.training.folder import CHECKPOINTS, METRICS, REPORT
from visionlora.training.guard import GuardedStep
from visionlora.training.loop import fit
from visionlora.training.monitor import Monitor
from visionlora.training.run import train
from visionlora.training.state import RunState


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


def spoil_loss(loss: Tensor, model: nn.Module) -> Tensor:
    return loss * torch.tensor(float("nan"))


def spoil_gradient(loss: Tensor, model: nn.Module) -> Tensor:
    """The same loss; the root's derivative at 0 is infinite."""
    some = next(parameter for parameter in model.parameters() if parameter.requires_grad).sum()
    return loss + (some - some.detach()).sqrt()


SPOILERS = {"loss": spoil_loss, "gradient": spoil_gradient}


def make_parts(fused: bool, fp16: bool) -> tuple[nn.Module, torch.optim.Optimizer, "torch.amp.GradScaler"]:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    return model, optimizer, torch.amp.GradScaler("cpu", enabled=fp16)


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    found = {f"{index}/{key}": torch.as_tensor(value) for index, each in state.items() for key, value in each.items()}
    return {key: value.clone() for key, value in (found | model.state_dict()).items()}


@pytest.mark.parametrize("spoiled", SPOILERS)
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_is_left_out_changes_nothing(spoiled: str, clip: float, fp16: bool, fused: bool) -> None:
    model, optimizer, scaler = make_parts(fused, fp16)
    guard = GuardedStep(model, optimizer, scaler, clip)
    states, left_out = [], []
    for spoil in (None, SPOILERS[spoiled], None):
        guard.begin()
        loss = model(torch.randn(2, 3, 8, 8)).square().sum()
        loss = spoil(loss, model) if spoil else loss
        scaler.scale(loss).backward()
        left_out.append(bool(guard.step(loss.detach())))
        optimizer.zero_grad()
        states.append(everything(model, optimizer))
    assert left_out == [False, True, False]
    first, second, third = states
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not any(torch.equal(value, third[key]) for key, value in first.items())


def test_steps_that_are_taken_are_adams() -> None:
    model, optimizer, scaler = make_parts(fused=False, fp16=False)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).train()
    other.load_state_dict(model.state_dict())
    plain = torch.optim.AdamW(other.parameters(), lr=0.1)
    guard = GuardedStep(model, optimizer, scaler, clip=0.5)
    for _ in range(3):
        guard.begin()
        x = torch.randn(2, 3, 8, 8)
        loss = model(x).square().sum()
        loss.backward()
        guard.step(loss.detach())
        optimizer.zero_grad()
        other(x).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        plain.step()
        plain.zero_grad()
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_fused_step_reads_nothing_back_from_the_device() -> None:
    """On a GPU each such reading would wait for all that was asked of it."""
    model, optimizer, scaler = make_parts(fused=True, fp16=False)
    guard, read = GuardedStep(model, optimizer, scaler, clip=1.0), []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "_local_scalar_dense" in str(func):
                read.append(func)
            return func(*args, **(kwargs or {}))

    for watched in (False, True):  # the optimizer's state is made in the first step
        with Watch() if watched else torch.enable_grad():
            guard.begin()
            loss = model(torch.randn(2, 3, 8, 8)).square().sum()
            loss.backward()
            guard.step(loss.detach())
    assert read == []
    with Watch():
        assert bool(torch.ones(()))
    assert len(read) == 1


def spoiled_run(
    config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Tensor, nn.Module], Tensor],
    calls: range,
    resume: bool = False,
    ctrl_c: int = 0,
) -> Any:
    """Train, with the losses of these calls spoiled, and Ctrl+C in one."""

    def fit_spoiled(state: RunState, monitor: Monitor, stop: Callable[[], int]) -> None:
        training: Any = state.setup.training
        loss, done = training.loss, []

        def spoiled(model: nn.Module, batch: dict[str, object]) -> Tensor:
            done.append(1)
            if len(done) == ctrl_c:
                signal.raise_signal(signal.SIGINT)
            found: Tensor = loss(model, batch)
            return spoil(found, model) if len(done) in calls else found

        training.loss = spoiled
        fit(state, monitor, stop)

    with monkeypatch.context() as patched:
        patched.setattr("visionlora.training.run.fit", fit_spoiled)
        return train(config, resume=resume, quiet=True)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


@pytest.mark.parametrize("spoiled", SPOILERS)
def test_a_bad_batch_is_skipped_and_its_files_are_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    config = make_config(images, tmp_path / "run", accumulate=2, log_every=1)
    result = spoiled_run(config, monkeypatch, SPOILERS[spoiled], range(4, 5))
    (line,) = lines(result.folder, "skipped")
    assert (line["step"], line["epoch"], line["what"]) == (2, 0, spoiled)
    assert len(set(line["files"])) == 8  # of both batches of the step
    assert all(Path(name).is_file() for name in line["files"])
    assert result.skipped_steps == json.loads((result.folder / REPORT).read_text())["skipped_steps"] == 1
    assert [entry["step"] for entry in lines(result.folder, "train")] == list(range(1, 7))


def test_a_log_without_a_finite_loss_has_none(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = spoiled_run(make_config(images, tmp_path / "run"), monkeypatch, spoil_loss, range(4, 5))
    losses = [line["loss"] for line in lines(result.folder, "train")]
    assert [loss is None for loss in losses] == [number == 3 for number in range(12)]


@pytest.mark.parametrize("limit", [0, 2])
def test_too_many_in_a_row_stop_the_run_and_resume_finishes_it(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """From step 4 on all are bad, and a checkpoint is due every second: the last holds what step 3 left."""
    config = make_config(images, tmp_path / "run", max_skipped_steps=limit)
    with pytest.raises(InputError, match=rf"in {limit + 1} step.*the last of them step {4 + limit} \(.*png.*--resume"):
        spoiled_run(config, monkeypatch, spoil_gradient, range(4, 99))
    last = checkpoints(tmp_path / "run" / CHECKPOINTS)[-1]
    assert last.name == f"step-{4 + limit:08d}-0000"
    assert len(lines(tmp_path / "run", "skipped")) == limit + 1
    result = train(config, resume=True, quiet=True)
    assert result.skipped_steps == limit + 1
    assert [line["step"] for line in lines(result.folder, "train")] == list(range(1, 13))


def test_the_checkpoint_of_a_stop_holds_what_the_step_before_left(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(images, tmp_path / "run", max_skipped_steps=0, checkpoint_every=1)
    with pytest.raises(InputError, match="not finite in 1 step, the last of them step 4"):
        spoiled_run(config, monkeypatch, spoil_loss, range(4, 99))
    before, after = (load_file(path / "tensors.safetensors") for path in checkpoints(tmp_path / "run" / CHECKPOINTS))
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items() if not key.startswith("random/"))


def test_a_detectors_batch_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_detection_config(make_scenes(tmp_path / "scenes"), tmp_path / "run", epochs=1)
    result = spoiled_run(config, monkeypatch, spoil_loss, range(2, 3))
    (line,) = lines(result.folder, "skipped")
    assert len(line["files"]) == 4
    assert all(Path(name).is_file() for name in line["files"])


def test_skips_in_a_row_are_counted_over_a_restart(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad step before a stop and two after it are three."""
    config = make_config(images, tmp_path / "run", max_skipped_steps=2)
    with pytest.raises(Interrupted, match="step 4"):
        spoiled_run(config, monkeypatch, spoil_loss, range(4, 99), ctrl_c=4)
    with pytest.raises(InputError, match="in 3 steps in a row, the last of them step 6 "):
        spoiled_run(config, monkeypatch, spoil_loss, range(1, 99), resume=True)
