"""Runs whose processes hold the base together are the runs of processes that each have the whole."""

import importlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.processes import exit_codes, start_processes
from helpers.runs import losses, make_config, make_images
from helpers.same import assert_same_tensors
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.stopping import Interrupted, Lost
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.trained import ADAPTER
from visionlora.tensor_files import open_tensors
from visionlora.training.distributed import Processes, joined
from visionlora.training.folder import REPORT
from visionlora.training.run import train
from visionlora.training.sharded import _Gather, refuse_sharding

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")


def scores(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / REPORT).read_text())["scores"]
    return found


def variants(config: RunConfig, *names: str) -> list[RunConfig]:
    """The same run in several folders, sharded where its name says so."""
    return [
        config.model_copy(
            update={
                "out": config.out / name,
                "train": config.train.model_copy(update={"shard_base": name != "whole"}),
            }
        )
        for name in names
    ]


@contextmanager
def stopped_at(rank: int, call: int) -> Iterator[None]:
    """Process 1 gets a signal before its so many-th forward, which stops all after that step."""
    plain, calls = ClassificationTraining.loss, []

    def loss(training: Any, model: Any, batch: Any) -> Any:
        calls.append(1)
        if rank == 1 and len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(training, model, batch)

    ClassificationTraining.loss = loss  # type: ignore[method-assign]
    try:
        with pytest.raises(Interrupted, match=f"step {call}"):
            yield
    finally:
        ClassificationTraining.loss = plain  # type: ignore[method-assign]


def test_two_processes_that_hold_the_base_together_train_as_two_that_have_it(tmp_path: Path) -> None:
    # 9 images to validate in 3 batches: one process has two of them, the other helps it with the second.
    images, scenes = make_images(tmp_path / "images", train=4, val=3), tmp_path / "scenes"
    make_scenes(scenes, train=6)
    settings: Any = {"batch_size": 5, "epochs": 2, "log_every": 1}
    vit, cnn = (
        make_config(images, tmp_path / name, **settings, ema=0.5).model_copy(update={"model": model})
        for name in ("test_vit", "test_efficientnet")
        for model in [make_config(images, tmp_path).model.model_copy(update={"name": name, "drop_rate": 0.0})]
    )
    detector = make_detection_config(scenes / "scenes.json", tmp_path / "detector", batch_size=5, evaluate_every=2)
    vits, cnns = variants(vit, "whole", "stopped"), variants(cnn, "whole", "sharded", "stopped")
    detectors = variants(detector, "whole", "sharded")

    importlib.import_module("torch.distributed.fsdp")  # before the processes are forked, for it takes seconds

    def work(rank: int) -> None:
        with joined():
            for config in (vits[0], *cnns[:2], *detectors):
                train(config, quiet=True)
            with stopped_at(rank, 4):  # in the second epoch
                train(vits[1], quiet=True)
            train(variants(vit, "whole")[0].model_copy(update={"out": vits[1].out}), resume=True, quiet=True)
            with stopped_at(rank, 2):
                train(cnns[2], quiet=True)
            train(cnns[2], resume=True, quiet=True)

    assert exit_codes(start_processes(2, work)) == [0, 0]
    for whole, *others in (vits, cnns[:2], detectors):
        for config in others:
            assert losses(config.out) == pytest.approx(losses(whole.out), rel=1e-4, abs=1e-6)
            assert scores(config.out) == pytest.approx(scores(whole.out), rel=1e-3, abs=1e-3)
            files = [open_tensors(each.out / ADAPTER) for each in (whole, config)]
            with files[0] as expected, files[1] as found:
                for field in ("base", "rounded", "layers", "architecture", "classes", "unfrozen"):
                    assert found.metadata()[field] == expected.metadata()[field]
                assert set(found.keys()) == set(expected.keys())
                for key in expected.keys():  # noqa: SIM118
                    torch.testing.assert_close(found.get_tensor(key), expected.get_tensor(key), rtol=1e-3, atol=1e-4)
    # What stopped and went on in parts is the same to the last bit.
    assert losses(cnns[2].out) == losses(cnns[1].out)
    assert_same_tensors(cnns[2].out / ADAPTER, cnns[1].out / ADAPTER)


def test_what_cannot_be_sharded_is_told_in_one_line(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", train=1, val=1)
    config, two = make_config(images, tmp_path / "run", shard_base=True), Processes(0, 2)
    with pytest.raises(InputError, match=r"shard_base=true has several processes .* and there is one; start more \("):
        train(config, quiet=True)
    assert not (tmp_path / "run").exists()
    refuse_sharding(config, two)
    with pytest.raises(InputError, match=r"with train\.method=full nothing is"):
        refuse_sharding(make_config(images, tmp_path / "run", shard_base=True, method="full"), two)
    by_itself = config.model_copy(update={"lora": config.lora.__class__(rank="auto", budget="1MB")})
    with pytest.raises(InputError, match=r"lora\.rank=auto looks at the whole model"):
        refuse_sharding(by_itself, two)


def test_a_process_that_is_lost_while_weights_are_gathered_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(dist, "all_gather_into_tensor", broken)
    with pytest.raises(Lost, match="Connection closed"):
        _Gather()(torch.empty(2), torch.empty(1), None)
