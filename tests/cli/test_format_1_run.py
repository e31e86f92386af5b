"""A run folder whose adapter's file is of format 1 predicts, evaluates, merges and exports as it did."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

import visionlora as vl
from helpers.format_1 import FOLDER
from helpers.squares import Command
from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.data.images import read_image

EXPECTED: dict[str, dict[str, float]] = json.loads((FOLDER / "predictions.json").read_text())
ABOUT = 1e-3
"""Of a probability: another processor's rounding, and nothing more."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in, for the run's paths are relative."""
    copy = tmp_path / "format_1"
    shutil.copytree(FOLDER, copy)
    monkeypatch.chdir(copy)
    return copy


def answers(visionlora: Command, model: str) -> dict[str, Any]:
    outcome = visionlora("predict", model, "images/val", "--top", 3, "--out", "found.json")
    assert outcome.code == 0, outcome.err
    return {entry["image"]: dict(entry["labels"]) for entry in json.loads(Path("found.json").read_text())}


def probabilities(model: nn.Module, path: str) -> list[float]:
    preprocessing = Preprocessing(**vl.read_header("run/adapter.safetensors").preprocessing)
    with torch.no_grad():
        return model.eval()(eval_transform(preprocessing)(read_image(Path(path)))[None]).softmax(1)[0].tolist()


def test_it_predicts_what_it_predicted(visionlora: Command) -> None:
    found = answers(visionlora, "run")
    assert found.keys() == EXPECTED.keys()
    for image, labels in EXPECTED.items():
        assert found[image] == pytest.approx(labels, abs=ABOUT)


def test_it_scores_what_it_scored(visionlora: Command) -> None:
    assert visionlora("eval", "run", "--out", "scores.json").code == 0
    scores = json.loads(Path("scores.json").read_text())["scores"]
    assert scores == pytest.approx(json.loads(Path("run/report.json").read_text())["scores"], abs=ABOUT)


def test_merged_it_is_a_plain_model_that_gives_the_same(visionlora: Command) -> None:
    assert visionlora("merge", "run", "--out", "merged.safetensors").code == 0
    plain = timm.create_model("test_efficientnet", num_classes=3)
    plain.load_state_dict(load_file("merged.safetensors"))
    for image, labels in EXPECTED.items():
        wanted = [labels[name] for name in ("blue", "green", "red")]
        assert probabilities(plain, image) == pytest.approx(wanted, abs=ABOUT)


def test_exported_it_predicts_the_same(visionlora: Command) -> None:
    outcome = visionlora("export", "run", "--to", "timm", "--out", "site", "--rounds", 1)
    assert outcome.code == 0, outcome.err
    for image, labels in answers(visionlora, "site").items():
        assert labels == pytest.approx(EXPECTED[image], abs=ABOUT)
