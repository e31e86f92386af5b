"""``train.retain``: an epoch that loses what the base knew is not the best one."""

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.runs import interrupt
from helpers.squares import write_squares
from visionlora.config import check_config, load_config
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.studies.forgetting import retained
from visionlora.tasks.classification.task import TASK
from visionlora.tasks.trained import load_trained
from visionlora.training.checkpoint import Progress
from visionlora.training.gate import Gate, is_better
from visionlora.training.run import train

pytestmark = pytest.mark.usefixtures("no_figures")

OWN = 5
"""Classes of the base's head."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares to train on, a base, and noise that it has answers for."""
    root = tmp_path_factory.mktemp("gate")
    write_squares(root / "train", 6, seed=0)
    write_squares(root / "val", 6, seed=1)
    torch.manual_seed(3)
    base: nn.Module = timm.create_model("test_vit", num_classes=OWN, img_size=32)
    nn.init.normal_(base.head.weight)  # type: ignore[union-attr, arg-type]
    save_file(base.state_dict(), root / "base.safetensors")
    generator = np.random.default_rng(0)
    for index in range(40):
        folder = root / "known" / f"class{index % OWN}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (2, 2, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def config_of(root: Path, out: Path, **train: Any) -> RunConfig:
    settings = {"epochs": 4, "batch_size": 6, "lr": 0.01, "head_lr": 0.005, "warmup_epochs": 0}
    return check_config(
        {
            "model": {"name": "test_vit", "checkpoint": str(root / "base.safetensors"), "img_size": 32},
            "data": {"root": str(root), "train": "train", "val": "val", "augment": "none", "workers": 0},
            "lora": {"rank": 2},
            "train": {**settings, **train},
            "out": str(out),
        }
    )


def evaluations(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "val"]


@pytest.fixture(scope="module")
def open_gate(root: Path) -> Path:
    """A run in which every epoch passes. Not to be changed."""
    train(config_of(root, root / "open", retain=str(root / "known"), retain_at_least=1e-9), quiet=True)
    return root / "open"


def test_what_an_epoch_retains_is_what_its_adapter_does(root: Path, open_gate: Path) -> None:
    report = json.loads((open_gate / "report.json").read_text())
    path, device = open_gate / "adapter.safetensors", torch.device("cpu")
    config = load_config(open_gate / "config.yaml")
    target = TASK.images(config, "", load_trained(open_gate).classes).data  # type: ignore[arg-type]
    curve = retained(path, load_trained(open_gate), target, root / "known", config, device)
    assert report["retained"] == pytest.approx(curve.kept(curve.points[-1]))
    assert report["retained"] == evaluations(open_gate)[report["best_epoch"] - 1]["retained"]
    assert len({line["retained"] for line in evaluations(open_gate)}) > 1  # else this run would show nothing


def test_without_a_gate_the_run_is_the_same(root: Path, open_gate: Path, tmp_path: Path) -> None:
    train(config_of(root, tmp_path / "run"), quiet=True)
    files = [folder / "adapter.safetensors" for folder in (open_gate, tmp_path / "run")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert json.loads((tmp_path / "run" / "report.json").read_text())["retained"] is None


def test_an_epoch_that_loses_too_much_is_not_the_best(root: Path, open_gate: Path, tmp_path: Path) -> None:
    seen = evaluations(open_gate)
    at_least = sorted(line["retained"] for line in seen)[-2] - 1e-6  # two pass, or more where some are equal
    passing = [line for line in seen if line["retained"] >= at_least]
    assert len(passing) < len(seen)
    console = Console(file=StringIO(), width=200)
    result = train(
        config_of(root, tmp_path / "run", retain=str(root / "known"), retain_at_least=at_least), console=console
    )
    assert result.best_epoch - 1 == max(passing, key=lambda line: line["top1"])["epoch"]
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"keeps {at_least:g} of what the base knew of 40 images (top1 by labels" in told
    assert told.count(f"(retains less than {at_least:g})") == len(seen) - len(passing)


def test_where_none_passes_the_one_that_retains_most_is_taken(
    root: Path, open_gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionlora.tasks.classification.knowledge.own_outputs", lambda _name: OWN)
    seen = evaluations(open_gate)
    (root / "loose").mkdir(exist_ok=True)
    for path in (root / "known").rglob("*.png"):
        shutil.copy(path, root / "loose" / path.name)
    console = Console(file=StringIO(), width=200)
    result = train(
        config_of(root, tmp_path / "run", lr=0.05, retain=str(root / "loose"), retain_at_least=1.0), console=console
    )
    own = evaluations(tmp_path / "run")
    assert all(line["retained"] < 1 for line in own)
    assert result.best_epoch - 1 == max(own, key=lambda line: line["retained"])["epoch"]
    assert len(own) == len(seen)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "agreement with itself 1.0000" in told
    assert "no epoch keeps 1 of what the base knew (train.retain_at_least): the one that keeps most was taken" in told


def test_a_stopped_run_goes_on_with_its_gate(
    root: Path, open_gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = shutil.copytree(root / "known", tmp_path / "known")
    config = config_of(root, tmp_path / "run", retain=str(known), retain_at_least=1e-9)
    interrupt(config, monkeypatch, step=8)
    shutil.copy(next(known.rglob("*.png")), known / "class0" / "more.png")
    with pytest.raises(InputError, match=r"another number of images \(40, now 41\) in the retained part"):
        train(config, resume=True, quiet=True)
    (known / "class0" / "more.png").unlink()
    train(config, resume=True, quiet=True)
    assert evaluations(tmp_path / "run") == evaluations(open_gate)
    files = [folder / "adapter.safetensors" for folder in (open_gate, tmp_path / "run")]
    assert files[0].read_bytes() == files[1].read_bytes()
    reports = [json.loads((folder / "report.json").read_text()) for folder in (open_gate, tmp_path / "run")]
    assert reports[0]["retained"] == reports[1]["retained"]


@pytest.mark.parametrize(
    ("train_settings", "message"),
    [
        ({"keep": "last"}, "train.retain chooses an epoch, and train.keep=last takes the last one"),
        ({"retain": "val"}, "the base has no head of its own for 3 classes"),
        ({"retain": "nowhere"}, "nowhere"),
    ],
)
def test_what_can_not_be_retained_is_refused(
    root: Path, tmp_path: Path, train_settings: dict[str, Any], message: str
) -> None:
    settings = {"retain": "known", **train_settings}
    settings["retain"] = str(root / settings["retain"])
    with pytest.raises(InputError, match=message):
        train(config_of(root, tmp_path / "run", **settings), quiet=True)
    assert not (tmp_path / "run").exists()


def test_of_a_detector_nothing_can_be_asked(root: Path, tmp_path: Path) -> None:
    config = make_detection_config(make_scenes(tmp_path / "data", 2, 1), tmp_path / "run", retain=str(root / "known"))
    with pytest.raises(InputError, match="is for classifiers, and this run is of a detector"):
        train(config, quiet=True)


@pytest.mark.parametrize(
    ("value", "share", "best", "kept", "better"),
    [
        (0.5, 0.9, None, None, True),  # the first
        (0.9, 0.97, 0.5, 0.99, False),  # a higher score that loses too much
        (0.4, 0.99, 0.9, 0.97, True),  # the first that keeps enough
        (0.6, 0.985, 0.5, 0.99, True),  # both do: by the score
        (0.5, 0.995, 0.5, 0.99, False),
        (0.4, 0.95, 0.9, 0.90, True),  # none does: by what is kept
        (0.9, 0.90, 0.4, 0.95, False),
    ],
)
def test_which_of_two_is_better(
    value: float, share: float, best: float | None, kept: float | None, better: bool
) -> None:
    known: Any = None
    progress = Progress(best=best, retained=kept)
    assert is_better(value, share, progress, Gate(known, 0.8, 0.98)) is better
