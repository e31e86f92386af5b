"""Several processes train what one trains, end together, and go on in any number."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.processes import exit_codes, start_processes
from helpers.runs import make_config, make_images
from helpers.same import assert_same_tensors
from helpers.segmentation_runs import make_masks, make_segmentation_config
from visionlora.cli.train import train as train_command
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.stopping import Lost
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.evaluation import score
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import ADAPTER, load_trained
from visionlora.training.checkpoint import checkpoints, read_checkpoint
from visionlora.training.distributed import ALONE, Processes
from visionlora.training.folder import CHECKPOINTS, METRICS, REPORT
from visionlora.training.run import told_of_processes, train

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def without_dropout(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"drop_rate": 0.0})})


def tasks(root: Path, out: Path) -> list[RunConfig]:
    """A short run of each: uneven shares, batches of one image, tiles, losses that are no means over images."""
    images, scenes, masks = root / "images", root / "scenes", root / "masks"
    if not root.exists():
        make_images(images), make_scenes(scenes, train=8), make_masks(masks, train=10)
    tiles = {"tile": 64, "tile_overlap": 16}
    losses = {"cross_entropy": 1.0, "dice": 0.5}
    return [
        without_dropout(make_config(images, out / "classification", batch_size=5, accumulate=2, evaluate_every=2)),
        make_detection_config(scenes / "scenes.json", out / "detection", data=tiles, batch_size=5, evaluate_every=2),
        make_segmentation_config(masks, out / "segmentation", loss=losses, class_weights="median_frequency"),
    ]


def test_two_processes_train_every_task_as_one_does(tmp_path: Path) -> None:
    configs = tasks(tmp_path / "data", tmp_path / "one"), tasks(tmp_path / "data", tmp_path / "two")
    both = start_processes(2, lambda _rank: [train(config, quiet=True) for config in configs[1]])
    for config in configs[0]:
        train(config, quiet=True)
    assert exit_codes(both) == [0, 0]
    for one, two in zip(*configs, strict=True):
        expected, found = lines(one.out, "train"), lines(two.out, "train")
        assert len(expected) == {"classification": 6, "detection": 8, "segmentation": 6}[one.task]
        # What is left is the order of sums; it grows from step to step.
        assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], rel=1e-4)
        report = json.loads((two.out / REPORT).read_text())
        assert report["scores"] == pytest.approx(json.loads((one.out / REPORT).read_text())["scores"], abs=0.02)
        # And in one process the model of the two scores what they said.
        val = task_of(two.task).images(two, "", report_classes(two)).data
        scores = score(load_trained(two.out), val, two.train.batch_size).scores()
        loss = scores.pop("loss", 0.0)  # a sum of floats, and each process adds its own
        assert report["scores"].pop("loss", 0.0) == pytest.approx(loss, rel=1e-9)
        assert report["scores"] == scores


def report_classes(config: RunConfig) -> list[str]:
    return load_trained(config.out).classes


class Signalling:
    """``loss`` that gives its own process a signal before the so many-th call, in one of the processes alone."""

    def __init__(self, number: signal.Signals, call: int, in_rank: int) -> None:
        self.number, self.call, self.in_rank = number, call, in_rank

    def __call__(self, config: RunConfig, resume: bool = False) -> Callable[[int], object]:
        def work(rank: int) -> None:
            plain, calls = ClassificationTraining.loss, []

            def loss(training: Any, model: Any, batch: Any) -> Any:
                calls.append(1)
                if rank == self.in_rank and len(calls) == self.call:
                    os.kill(os.getpid(), self.number)
                return plain(training, model, batch)

            ClassificationTraining.loss = loss  # type: ignore[method-assign]  # of this process alone
            train(config, resume=resume, quiet=True)

        return work


def test_a_lost_process_ends_the_other_and_both_go_on_bit_for_bit(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = make_images(tmp_path / "images", train=6)
    # What draws numbers: each process has its own, and gets them back.
    whole, killed = (make_config(images, tmp_path / name, mixup=0.2, patience=9) for name in ("whole", "killed"))
    assert exit_codes(start_processes(2, lambda _rank: train(whole, quiet=True))) == [0, 0]
    codes = exit_codes(start_processes(2, Signalling(signal.SIGKILL, 7, in_rank=1)(killed)))
    assert codes == [Lost.exit_code, -signal.SIGKILL]
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: a process of the run was lost (")
    assert said[0].endswith("the same command with --resume goes on from the last checkpoint")
    assert read_checkpoint(checkpoints(killed.out / CHECKPOINTS)[-1]).progress.step == 6
    assert exit_codes(start_processes(2, lambda _rank: train(killed, resume=True, quiet=True))) == [0, 0]
    assert (killed.out / METRICS).read_bytes() == (whole.out / METRICS).read_bytes()
    assert_same_tensors(*(config.out / ADAPTER for config in (whole, killed)))
    assert_same_tensors(
        *(checkpoints(config.out / CHECKPOINTS)[-1] / "tensors.safetensors" for config in (whole, killed))
    )


def test_a_signal_to_one_stops_all_with_a_checkpoint_and_any_number_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = make_images(tmp_path / "images", train=6)
    whole, stopped = (without_dropout(make_config(images, tmp_path / name)) for name in ("whole", "stopped"))
    train(whole, quiet=True)
    capfd.readouterr()

    codes = exit_codes(start_processes(2, Signalling(signal.SIGTERM, 3, in_rank=1)(stopped)))
    assert codes == [143, 143]
    assert capfd.readouterr().err == "stopped at step 3; the same command with --resume goes on\n"
    assert read_checkpoint(checkpoints(stopped.out / CHECKPOINTS)[-1]).progress.step == 3

    def stop_in_the_evaluation(rank: int) -> None:
        import visionlora.tasks.evaluation as evaluation

        plain = evaluation.in_shares

        def in_shares(loader: Any, size: int) -> Any:
            if rank == 2:
                signal.raise_signal(signal.SIGHUP)
            return plain(loader, size)

        evaluation.in_shares = in_shares
        train(stopped, resume=True, quiet=True)

    assert exit_codes(start_processes(3, stop_in_the_evaluation)) == [129, 129, 129]
    step = len(lines(whole.out, "train")) // 2
    assert capfd.readouterr().err == (
        f"stopped in the evaluation after step {step}; the same command with --resume goes on\n"
    )
    train(stopped, resume=True, quiet=True)  # and now by one
    expected = [line["loss"] for line in lines(whole.out, "train")]
    assert [line["loss"] for line in lines(stopped.out, "train")] == pytest.approx(expected, rel=1e-4)


def test_what_ends_all_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_codes(start_processes(2, lambda _rank: train_command("nothing.yaml", [], False, False))) == [2, 2]
    assert capfd.readouterr().err.count("error: ") == 1

    images = make_images(tmp_path / "images")
    config = make_config(images, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    assert exit_codes(start_processes(2, lambda _rank: train(config, quiet=True))) == [2, 2]
    assert capfd.readouterr().err == (
        f"error: out {tmp_path / 'run'}: is not empty; give another folder, --resume to go on, or --overwrite\n"
    )

    other = make_images(tmp_path / "other", train=9)
    configs = [make_config(root, tmp_path / "differs") for root in (images, other)]
    assert exit_codes(start_processes(2, lambda rank: train(configs[rank], quiet=True))) == [2, 2]
    assert capfd.readouterr().err == (
        "error: process 1 of 2 has other data than process 0; give all machines the same\n"
    )

    full = make_config(images, tmp_path / "full", method="full")
    assert exit_codes(start_processes(2, lambda _rank: train(full, quiet=True))) == [2, 2]
    assert "would measure the statistics of BatchNorm in each process alone" in capfd.readouterr().err

    # One that a single process meets, in the middle of the work.
    config = make_config(images, tmp_path / "damaged")
    reads = images / "train" / "red" / "7.png"

    def damage(rank: int) -> None:
        import visionlora.data.classification.samples as samples

        def read_image(path: Path) -> Any:
            if path == reads:
                raise InputError(f"{path}: is damaged")
            return plain(path)

        plain, samples.read_image = samples.read_image, read_image
        train(config, quiet=True)

    codes = exit_codes(start_processes(2, damage))
    assert sorted(codes, key=str) == [2, Lost.exit_code]
    assert capfd.readouterr().err == f"error: {reads}: is damaged\n"


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert [Processes(5, 8, 1).device(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    assert chosen == [1, 1]
    assert Processes().device("cuda:1") == "cuda:1" and Processes().device("auto") == "auto"
    with pytest.raises(InputError, match="process 3 of this machine has no GPU, there being 2; start as many"):
        Processes(2, 4, 2).device("auto")
    with pytest.raises(InputError, match="4 processes need one each"):
        Processes(2, 4, 1).device("cuda:0")


def test_gpus_that_are_left_idle_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, gpu = make_config(tmp_path, tmp_path / "run", batch_size=6), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert told_of_processes(config, ALONE, gpu) == "1 of 3 GPUs is used; train.devices=3 trains on all of them"
    assert told_of_processes(config, ALONE, torch.device("cpu")) == ""
    assert told_of_processes(config, Processes(0, 2), gpu) == "2 processes share each batch of 6 images, 3 each"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert told_of_processes(config, ALONE, gpu) == ""
