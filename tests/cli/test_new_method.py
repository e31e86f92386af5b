"""A new adapter method in one class, through every command, without a change in the package."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import visionlora as vl
from helpers.squares import Command, write_config
from helpers.stopping import ctrl_c_in_loss
from visionlora.adapters.methods.base import Method, exact
from visionlora.adapters.methods.registry import METHODS, register
from visionlora.data.classification.transforms import eval_transform
from visionlora.data.images import read_image
from visionlora.models.classifier import create_classifier
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.trained import load_trained


class RowScale(Method):
    """``(1 + s) * weight``, row by row; s starts at zero."""

    has_rank = False

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__(weight, rank, alpha)
        self.row_scale = nn.Parameter(exact(weight).new_zeros(len(weight)))

    def adapted(self, weight: Tensor) -> Tensor:
        return weight * (1 + self.row_scale).view(-1, *[1] * (weight.dim() - 1))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """As the script of somebody who has a method of their own does before it calls ``visionlora.cli.main.main``."""
    register("row_scale", RowScale)
    yield
    METHODS.pop("row_scale", None)


@pytest.fixture
def config(tmp_path: Path, squares: Path) -> Path:
    path = write_config(tmp_path, squares)
    path.write_text(path.read_text() + "lora: {method: row_scale}\n")
    return path


def test_the_new_method_goes_from_end_to_end(visionlora: Command, config: Path, squares: Path, tmp_path: Path) -> None:
    run, images = tmp_path / "run", sorted((squares / "val" / "red").iterdir())
    assert visionlora("train", "--config", config).code == 0
    trained, adapted = load_trained(run), load_trained(run, merged=False)
    assert sum(bool(p.any()) for name, p in adapted.model.named_parameters() if name.endswith("row_scale")) > 5
    seen = torch.stack([eval_transform(trained.preprocessing)(read_image(path)) for path in images])
    with torch.no_grad():
        expected = adapted.model(seen).softmax(1)
        torch.testing.assert_close(trained.model(seen).softmax(1), expected, atol=1e-5, rtol=1e-5)

    assert visionlora("eval", run, "--out", tmp_path / "scores.json").code == 0
    scores = json.loads((run / "report.json").read_text())["scores"]
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == pytest.approx(scores, abs=1e-5)

    def agrees(model: Path) -> None:
        assert visionlora("predict", model, *images, "--out", tmp_path / "found.json").code == 0
        found: list[dict[str, Any]] = json.loads((tmp_path / "found.json").read_text())
        for entry, probabilities in zip(found, expected.tolist(), strict=True):
            named = dict(zip(trained.classes, probabilities, strict=True))
            assert dict(entry["labels"]) == pytest.approx(named, abs=1e-4)

    agrees(run)
    assert visionlora("merge", run, "--out", tmp_path / "merged.safetensors").code == 0
    agrees(tmp_path / "merged.safetensors")
    outcome = visionlora("export", run, "--to", "onnx", "--out", tmp_path / "exported", "--rounds", 1)
    assert (outcome.code, outcome.err) == (0, "")
    agrees(tmp_path / "exported")


def test_its_file_is_saved_loaded_and_merged_from_python(tmp_path: Path) -> None:
    def made() -> nn.Module:
        torch.manual_seed(0)
        return create_classifier("test_resnet", 3, pretrained=False).model.eval()

    model, x = made(), torch.randn(2, 3, 64, 64)
    plain = model(x)
    report = vl.attach(model, vl.LoRAConfig(method="row_scale", targets="conv"))
    assert torch.equal(model(x), plain) and "row_scale" not in str(report)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    expected = model(x)
    assert not torch.allclose(expected, plain)
    vl.save_adapter(model, tmp_path / "rows.safetensors")
    again = made()
    vl.load_adapter(again, tmp_path / "rows.safetensors")
    torch.testing.assert_close(again(x), expected)
    vl.merge(again)
    torch.testing.assert_close(again(x), expected, atol=1e-5, rtol=1e-5)


def test_a_stopped_run_of_the_new_method_goes_on_bit_for_bit(
    visionlora: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert visionlora("train", "--config", config, f"out={tmp_path / 'whole'}").code == 0
    with ctrl_c_in_loss(monkeypatch, ClassificationTraining, 3):
        assert visionlora("train", "--config", config).code == 130
    assert visionlora("train", "--config", config, "--resume").code == 0
    one, other = (load_file(tmp_path / name / "adapter.safetensors") for name in ("whole", "run"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_without_its_registration_the_method_is_unknown_in_one_line(
    visionlora: Command, config: Path, squares: Path, tmp_path: Path
) -> None:
    run, image = tmp_path / "run", next((squares / "val" / "red").iterdir())
    assert visionlora("train", "--config", config, "train.epochs=1").code == 0
    del METHODS["row_scale"]
    known = "method is 'row_scale'; choose from lora, rslora, dora, lokr, loha"
    for command in (("train", "--config", config), ("eval", run), ("predict", run, image), ("merge", run)):
        outcome = visionlora(*command, *(["--out", tmp_path / "x.safetensors"] if command[0] == "merge" else []))
        assert outcome.code == 2
        assert outcome.err.startswith("error: ") and known in outcome.err and outcome.err.count("\n") == 1
