"""PEFT's own LoRA in a comparison: the same function, the same training, another's layers."""

import json
import os
import shutil
import signal
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from helpers.squares import write_squares
from visionlora.adapters.peft.folder import load_peft
from visionlora.config import check_config
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.stopping import Interrupted
from visionlora.studies.choosing import advice
from visionlora.studies.compare import compare
from visionlora.studies.methods import parse_methods, with_method
from visionlora.studies.peft import peft_to_try, train_with_peft
from visionlora.studies.plan import Budget, Plan
from visionlora.studies.table import rows_of
from visionlora.tasks.classification.task import TASK
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.evaluation import score
from visionlora.training.run import run_to_try
from visionlora.training.state import RunState, as_trained

pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("no_figures")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_squares(root / "train", 4, seed=0)
    write_squares(root / "val", 2, seed=1)
    return root


def config_of(images: Path, model: str, out: Path, **lora: Any) -> RunConfig:
    return check_config(
        {
            "model": {"name": model, "pretrained": False, "img_size": 32},
            "data": {"root": str(images), "augment": "light", "workers": 0},
            "lora": {"rank": 2, "alpha": 6, **lora},
            "train": {"epochs": 2, "batch_size": 6, "warmup_epochs": 0, "lr": 0.02, "head_lr": 0.01, "keep": "last"},
            "out": str(out),
        }
    )


@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
def test_it_trains_what_ours_trains_to_the_same_numbers(images: Path, tmp_path: Path, model: str) -> None:
    config = config_of(images, model, tmp_path)
    ours = run_to_try(config, CPU)
    theirs, note = peft_to_try(config, CPU)
    assert not note
    kinds = {type(module).__module__.split(".")[0] for module in theirs.model.modules()}
    assert "peft" in kinds
    sizes = [sum(p.numel() for p in each.model.parameters() if p.requires_grad) for each in (ours, theirs)]
    assert sizes[0] == sizes[1]
    theirs_by_name = dict(theirs.model.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.model.named_parameters():
            if name.endswith("lora_A"):
                own = theirs_by_name[f"{name.split('.adapters.')[0]}.lora_A.default.weight"]
                own.copy_(parameter.view_as(own))
    first, second = batches_of(ours), batches_of(theirs)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    assert trained_on(ours, first) == pytest.approx(trained_on(theirs, second), rel=1e-3)


def batches_of(state: RunState) -> list[dict[str, Any]]:
    training = state.setup.training
    return [batch for epoch in range(2) for batch in training.train_loader(training.train_batches(epoch))]


def trained_on(state: RunState, batches: list[dict[str, Any]]) -> list[float]:
    """The loss of each step of a plain loop."""
    state.model.train()
    losses = []
    for batch in batches:
        loss = state.setup.training.loss(state.model, batch)
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        losses.append(loss.item())
    assert abs(losses[0] - losses[-1]) > 0.01  # else nothing was learned, and equal is no wonder
    return losses


def test_its_file_is_pefts_and_computes_what_was_scored(images: Path, tmp_path: Path) -> None:
    config = config_of(images, "test_resnet", tmp_path / "run")
    result = train_with_peft(config)
    file = tmp_path / "run" / "peft" / "adapter_model.safetensors"
    assert result.saved_bytes == file.stat().st_size
    setup = TASK.set_up(config)  # type: ignore[arg-type]
    load_peft(setup.built.model, file.parent)
    trained = as_trained(config, setup, setup.built.model.eval())
    assert score(trained, setup.val).scores()["loss"] == pytest.approx(result.scores["loss"], rel=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] == pytest.approx(result.scores["loss"], rel=1e-4)


def test_a_stopped_run_goes_on_to_the_same_file(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = config_of(images, "test_vit", tmp_path / "whole")
    train_with_peft(whole)
    stopped = whole.model_copy(update={"out": tmp_path / "stopped"})
    loss, count = ClassificationTraining.loss, 0

    def counting(self: ClassificationTraining, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(self, model, batch)

    with monkeypatch.context() as patched:
        patched.setattr(ClassificationTraining, "loss", counting)
        with pytest.raises(Interrupted, match="at step 3"):
            train_with_peft(stopped)
    shutil.rmtree(tmp_path / "stopped" / "peft", ignore_errors=True)
    train_with_peft(stopped, resume=True)
    files = [tmp_path / name / "peft" / "adapter_model.safetensors" for name in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_it_can_not_adapt_is_said(images: Path, tmp_path: Path) -> None:
    _, note = peft_to_try(config_of(images, "test_efficientnet", tmp_path), CPU)
    assert "layers are left out, which PEFT can't adapt: blocks." in note


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"targets": ["attn.qkv:q,v"]}, "PEFT can't adapt parts of blocks.0.attn.qkv"),
        ({"init": "pissa"}, "PEFT has no equal of lora.init"),
    ],
)
def test_what_it_has_no_equal_of_is_refused(images: Path, tmp_path: Path, lora: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        peft_to_try(config_of(images, "test_vit", tmp_path, **lora), CPU)


def test_the_word_is_lora_at_a_rank(images: Path, tmp_path: Path) -> None:
    (variant,) = parse_methods(["peft-last-stage"], [4])
    config = config_of(images, "test_vit", tmp_path)
    own = with_method(config, variant, TASK.build(config.model, ["a", "b"]))  # type: ignore[arg-type]
    assert (variant.peft, variant.label) == (True, "peft-last-stage, rank 4")
    assert (own.lora.method, own.lora.rank, own.lora.alpha) == ("lora", 4, 12)
    assert all(str(target).startswith(("blocks.4", "blocks.5")) for target in own.lora.targets)


def test_in_a_study_it_is_measured_and_not_recommended(images: Path, tmp_path: Path) -> None:
    config = config_of(images, "test_vit", tmp_path / "study", targets=["attn.qkv"])
    study = compare(
        Plan(config, tuple(parse_methods(["lora", "peft"], [2])), (None,), Budget(steps=2), 1),
        console=Console(file=StringIO()),
    )
    ours, theirs = rows_of(study)
    folder = tmp_path / "study"
    file = folder / "runs" / "peft-r2_all_seed-0" / "peft" / "adapter_model.safetensors"
    assert (theirs.file_bytes, theirs.trainable) == (file.stat().st_size, ours.trainable)
    assert theirs.bytes_kept > 0 and theirs.step_seconds > 0
    assert not [*(folder / "rates").rglob("*.safetensors")]
    best = replace(theirs, scores={0: 1.0}, score=1.0, file_bytes=1)
    told = advice([replace(ours, scores={0: 0.1}, score=0.1), best], study)
    assert told.startswith("Take lora, rank 2: ") and "as good as" not in told and "peft, rank 2 reaches 1.0000" in told


def test_without_peft_the_study_says_so_first(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionlora.studies.peft.find_spec", lambda _name: None)
    config = config_of(images, "test_vit", tmp_path / "study")
    with pytest.raises(InputError, match="PEFT is not installed; pip install peft"):
        compare(Plan(config, tuple(parse_methods(["peft"], [2])), (None,), Budget(steps=2), 1))
    assert not (tmp_path / "study" / "trials").exists()
