"""``visionlora convert``: a run for PEFT, and back."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import visionlora as vl
from helpers.squares import Command
from visionlora.models.classifier import create_classifier
from visionlora.tasks.trained import load_trained


@pytest.fixture
def weights(trained: Path, tmp_path: Path) -> Path:
    """The base of the run."""
    path = tmp_path / "base.safetensors"
    save_file(load_trained(trained, base=True).model.state_dict(), path)
    return path


def test_a_run_goes_to_peft_and_back(visionlora: Command, trained: Path, weights: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "peft", tmp_path / "back.safetensors"
    outcome = visionlora("convert", trained, "--out", folder)
    assert outcome.code == 0 and f"peft.PeftModel.from_pretrained(model, '{folder}')" in outcome.out + outcome.err
    back = visionlora("convert", folder, "--model", "test_resnet", "--checkpoint", weights, "--out", file)
    assert back.code == 0 and "trains fully" in back.out
    model = create_classifier("test_resnet", 3, checkpoint=weights).model.eval()
    vl.load_adapter(model, file)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(x), load_trained(trained, merged=False).model(x))


def test_what_is_missing_or_too_much_is_said_in_one_line(
    visionlora: Command, trained: Path, weights: Path, tmp_path: Path
) -> None:
    model = create_classifier("test_resnet", 3, checkpoint=weights).model
    vl.attach(model, vl.LoRAConfig(rank=1))
    vl.save_peft(model, tmp_path / "peft")
    folder, out = tmp_path / "peft", tmp_path / "a.safetensors"
    named = (folder, "--model", "test_resnet")
    for arguments, expected in [
        ((tmp_path / "nothing", "--out", out), "no such file or run folder"),
        ((trained, "--out", folder), "is there already; give an absent or empty folder"),
        ((trained, "--model", "test_resnet", "--out", tmp_path / "x"), "--model and --classes are for one that does"),
        ((folder, "--out", out), "does not say which base it is for"),
        ((*named, "--out", out), "give its weights with --checkpoint, or fetch them with --download"),
        ((*named, "--out", tmp_path / "a.bin"), "give a new file that ends in .safetensors"),
        ((*named, "--checkpoint", weights, "--out", out), "holds no 'fc' that would say how many outputs"),
        ((folder, "--model", "test_resnot", "--checkpoint", weights, "--out", out), "unknown model 'test_resnot'"),
    ]:
        outcome = visionlora("convert", *arguments)
        assert outcome.code == 2 and expected in outcome.err and outcome.err.count("\n") == 1, outcome.err
    assert not out.exists()
    assert visionlora("convert", *named, "--checkpoint", weights, "--classes", 3, "--out", out).code == 0
