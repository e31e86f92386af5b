"""What a run leaves behind, and what it refuses."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from helpers.runs import COLOURS, interrupt, make_config, make_images
from helpers.same import assert_same_tensors
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.tasks.classification.inference import is_multilabel
from visionlora.tasks.trained import ADAPTER, MODEL, load_trained
from visionlora.training.checkpoint import checkpoints
from visionlora.training.concluding import Result
from visionlora.training.folder import CHECKPOINTS, CONFIG, EVENTS, FIGURES, METRICS, REPORT
from visionlora.training.run import train


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, str]:
    """A run, and what it showed. Not to be changed."""
    screen = StringIO()
    config = make_config(images, tmp_path_factory.mktemp("finished") / "run")
    return train(config, console=Console(file=screen, width=100)), screen.getvalue()


def read_lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_a_run_folder_holds_what_the_tutorial_says(finished: tuple[Result, str]) -> None:
    result, shown = finished
    assert {path.name for path in result.folder.iterdir()} == {
        *(CONFIG, ADAPTER, METRICS, REPORT, CHECKPOINTS, EVENTS, FIGURES),
    }
    assert {path.name for path in (result.folder / FIGURES).iterdir()} == {"predictions.png", "confusion_matrix.png"}
    report = json.loads((result.folder / REPORT).read_text())
    assert report["scores"] == result.scores
    assert report["saved_bytes"] == (result.folder / ADAPTER).stat().st_size
    assert list(report["per_class"]) == sorted(COLOURS)
    assert len(checkpoints(result.folder / CHECKPOINTS)) == 2
    assert not list(result.folder.rglob("*.tmp"))
    assert "epoch 2/2" in shown and "left out" in shown and str(result.folder) in shown


def test_the_report_is_what_the_best_epochs_line_says(images: Path, tmp_path: Path) -> None:
    result = train(make_config(images, tmp_path / "run", epochs=4, lr=0.05), quiet=True)
    evaluations = [line for line in read_lines(result.folder) if line["kind"] == "val"]
    best = max(evaluations, key=lambda line: line["top1"])
    assert result.best_epoch == best["epoch"] + 1
    for name, value in result.scores.items():
        assert best[name] == pytest.approx(value, abs=1e-6)


def test_the_saved_adapter_carries_what_using_it_needs(finished: tuple[Result, str]) -> None:
    result, _ = finished
    trained = load_trained(result.folder)
    assert trained.classes == sorted(COLOURS)
    assert (trained.preprocessing.height, trained.preprocessing.width) == (32, 32)
    assert not is_multilabel(trained)
    assert not any("lora" in name for name in trained.model.state_dict())
    adapted = load_trained(result.folder, merged=False).model
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(trained.model(x), adapted(x), atol=1e-5)


def test_tensorboard_has_curves_pictures_and_hyperparameters(finished: tuple[Result, str]) -> None:
    result, _ = finished
    scalars, pictures = set(), set()
    for file in sorted((result.folder / EVENTS).iterdir()):
        events = EventAccumulator(str(file)).Reload()
        scalars |= set(events.Tags()["scalars"])
        pictures |= set(events.Tags()["images"])
        if "train/loss" in events.Tags()["scalars"]:
            steps = [event.step for event in events.Scalars("train/loss")]
            assert steps == list(range(1, 13))
    assert {"train/loss", "train/images_per_s", "learning_rate/adapter", "learning_rate/head"} <= scalars
    assert {"val/top1", "val/macro_f1", "val/calibration_error", "val/loss", "val_f1_per_class/red"} <= scalars
    assert {"update_over_weight/conv1.0", "gradient_lora_A/conv1.0", "gradient_lora_B/conv1.0"} <= scalars
    assert any(tag.startswith("final/") for tag in scalars)
    assert {"predictions", "confusion_matrix"} <= pictures


@pytest.mark.parametrize("method", ["head", "full"])
def test_the_other_methods_train_and_load(images: Path, tmp_path: Path, method: str) -> None:
    result = train(make_config(images, tmp_path / "run", method=method), quiet=True)
    file = result.folder / (MODEL if method == "full" else ADAPTER)
    assert file.is_file()
    trained = load_trained(result.folder)
    total = sum(parameter.numel() for parameter in trained.model.parameters())
    head = sum(parameter.numel() for parameter in trained.model.fc.parameters())  # type: ignore[union-attr]
    assert result.trainable == (total if method == "full" else head)
    with safe_open(file, "pt") as tensors:
        names = set(tensors.keys())
    assert names == (set(trained.model.state_dict()) if method == "full" else {"fc.weight", "fc.bias"})


def test_full_fine_tuning_keeps_batchnorms_statistics_when_told_and_trains_its_weights(
    images: Path, tmp_path: Path
) -> None:
    def statistics(name: str, **settings: object) -> tuple[Tensor, Tensor, Tensor]:
        """Of the first BatchNorm, which starts with means of 0, variances of 1 and weights of 1; and its weights."""
        config = make_config(images, tmp_path / name, epochs=1, method="full", **settings)
        values = load_trained(train(config, quiet=True).folder).model.state_dict()
        return values["bn1.running_mean"], values["bn1.running_var"], values["bn1.weight"]

    means, variances, _ = statistics("measured")
    assert means.any() and not (variances == 1).any()
    means, variances, weights = statistics("kept", freeze_batchnorm=True)
    assert not means.any() and (variances == 1).all() and not (weights == 1).any()


def test_freezing_batchnorm_is_for_full_fine_tuning(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train.freeze_batchnorm is for train.method=full"):
        train(make_config(images, tmp_path / "run", freeze_batchnorm=True), quiet=True)


@pytest.mark.parametrize("settings", [{"autocast": "bf16"}, {"channels_last": True}, {"cutmix": 1.0, "mixup": 0.5}])
def test_options_train(images: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    result = train(make_config(images, tmp_path / "run", epochs=1, **settings), quiet=True)
    assert (result.folder / ADAPTER).is_file()


@pytest.mark.parametrize(("every", "evaluated"), [(1, [0, 1, 2]), (2, [1, 2]), (9, [2])])
def test_evaluations_come_as_often_as_asked_and_at_the_end(
    images: Path, tmp_path: Path, every: int, evaluated: list[int]
) -> None:
    result = train(make_config(images, tmp_path / "run", epochs=3, evaluate_every=every), quiet=True)
    assert [line["epoch"] for line in read_lines(result.folder) if line["kind"] == "val"] == evaluated
    assert result.best_epoch - 1 in evaluated


def test_early_stop_ends_after_patience(images: Path, tmp_path: Path) -> None:
    # With so small a learning rate no epoch after the first is better.
    result = train(make_config(images, tmp_path / "run", epochs=9, patience=2, lr=1e-9, head_lr=1e-9), quiet=True)
    evaluations = [line for line in read_lines(result.folder) if line["kind"] == "val"]
    assert len(evaluations) == 3 and result.best_epoch == 1


def test_a_run_that_keeps_the_last_epoch_reports_it(images: Path, tmp_path: Path) -> None:
    result = train(make_config(images, tmp_path / "run", epochs=4, lr=0.05, keep="last", patience=1), quiet=True)
    evaluations = [line for line in read_lines(result.folder) if line["kind"] == "val"]
    assert [line["epoch"] for line in evaluations] == [0, 1, 2, 3]
    assert result.best_epoch == 4
    assert result.scores["loss"] == pytest.approx(evaluations[-1]["loss"], abs=1e-5)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_learning_rate(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not finite|no longer finite.*train\.lr"):
        train(make_config(images, tmp_path / "run", lr=1e30, head_lr=1e30, clip=0), quiet=True)


def test_a_folder_that_is_not_empty_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        train(make_config(images, tmp_path), quiet=True)
    with pytest.raises(InputError, match=r"notes\.txt, which no run wrote"):
        train(make_config(images, tmp_path), overwrite=True, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("targets", "message"), [("con1", "did you mean"), ([], "train.method=head")])
def test_bad_targets_leave_no_folder(images: Path, tmp_path: Path, targets: object, message: str) -> None:
    config = make_config(images, tmp_path / "run")
    config = config.model_copy(update={"lora": replace(config.lora, targets=targets)})
    with pytest.raises(InputError, match=message):
        train(config, quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_below_a_file_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt is a file"):
        train(make_config(images, tmp_path / "notes.txt" / "run"), quiet=True)


def test_resume_refuses_other_settings_and_finishes_a_finished_run(images: Path, tmp_path: Path) -> None:
    first = train(make_config(images, tmp_path / "run"), quiet=True)
    with pytest.raises(InputError, match=r"train\.batch_size \(4, now 5\); bring them back"):
        train(make_config(images, tmp_path / "run", batch_size=5), resume=True, quiet=True)
    before = (first.folder / METRICS).read_bytes()
    again = train(make_config(images, tmp_path / "run"), resume=True, quiet=True)
    assert again.scores == first.scores
    assert (first.folder / METRICS).read_bytes() == before


def test_resume_refuses_another_base(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(make_config(images, tmp_path / "run"), quiet=True)
    real = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: real(seed + 1))  # other random weights
    with pytest.raises(InputError, match="not those that the run began with"):
        train(make_config(images, tmp_path / "run"), resume=True, quiet=True)


@pytest.mark.parametrize(("method", "epochs"), [("lora", 2), ("dora", 1), ("lokr", 1)])
def test_interrupted_runs_write_a_checkpoint_and_go_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, epochs: int
) -> None:
    def config(name: str) -> RunConfig:
        made = make_config(images, tmp_path / name, epochs=epochs, checkpoint_every=1000)
        return made.model_copy(update={"lora": replace(made.lora, method=method)})

    whole = train(config("whole"), quiet=True)

    interrupt(config("run"), monkeypatch, step=3)
    result = train(config("run"), resume=True, quiet=True)
    assert (result.folder / METRICS).read_bytes() == (whole.folder / METRICS).read_bytes()
    assert result.scores == whole.scores
    assert_same_tensors(*(each.folder / ADAPTER for each in (whole, result)))
