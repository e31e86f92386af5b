"""``visionlora fleet``, and ``predict`` with a camera of one."""

import json
from pathlib import Path

import pytest

from helpers.squares import Command
from helpers.tiny_models import MODELS, make_adapter, write_image


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("resnet"), MODELS["resnet"])


def test_a_fleet_from_its_first_camera_to_a_rollback(
    tmp_path: Path, adapter: Path, trained: Path, visionlora: Command
) -> None:
    fleet = tmp_path / "fleet"
    assert "version 1" in visionlora("fleet", "add", fleet, "gate", adapter, "--note", "first").out
    refused = visionlora("fleet", "add", fleet, "yard", trained)
    assert refused.code == 2 and "a fleet has one base" in refused.err and refused.err.count("\n") == 1
    other = tmp_path / "other"
    assert visionlora("fleet", "add", other, "squares", trained).code == 0
    shown = visionlora("fleet", "list", other).out
    assert "squares" in shown and "1 of 1" in shown and "top1" in shown
    assert visionlora("fleet", "check", fleet).out == "1 versions, 0 faults\n"
    again = visionlora("fleet", "rollback", fleet, "gate")
    assert again.code == 2 and "none before" in again.err


def test_versions_are_shown_and_compared(tmp_path: Path, adapter: Path, visionlora: Command) -> None:
    fleet = tmp_path / "fleet"
    other = make_adapter(tmp_path / "many", MODELS["many"])
    visionlora("fleet", "add", fleet, "gate", adapter)
    assert visionlora("fleet", "compare", fleet, "gate").code == 2
    visionlora("fleet", "rollback", fleet, "gate")
    visionlora("fleet", "add", fleet, "gate", other, "--note", "after rain")
    compared = visionlora("fleet", "compare", fleet, "gate").out
    assert "version 1" in compared and "version 2" in compared and "after rain" in compared and "rank" not in compared
    assert visionlora("fleet", "rollback", fleet, "gate", "--to", "1", "--note", "worse").code == 0
    shown = visionlora("fleet", "show", fleet, "gate").out
    assert (
        "version 1 is the current one" in shown
        and "rollback gate: 2 -> 1  worse" in shown
        and "add gate: nothing -> 1" in shown
    )
    assert "rollback gate: 2 -> 1" in visionlora("fleet", "show", fleet).out
    (fleet / "adapters" / "gate").rename(fleet / "adapters" / "gone")
    checked = visionlora("fleet", "check", fleet)
    assert checked.code == 1 and "2 versions, 2 faults" in checked.out and "no version names it" in checked.out


def test_predict_takes_a_cameras_current_adapter(tmp_path: Path, adapter: Path, visionlora: Command) -> None:
    fleet, image = tmp_path / "fleet", write_image(tmp_path / "a.png")
    visionlora("fleet", "add", fleet, "gate", adapter)
    assert visionlora("predict", "--fleet", fleet, "--camera", "gate", image, "--out", tmp_path / "a.json").code == 0
    assert visionlora("predict", adapter, image, "--out", tmp_path / "b.json").code == 0
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads((tmp_path / "b.json").read_text()) != []
    for arguments, words in (
        (("--fleet", fleet, image), "say whose adapter with --camera; there are gate"),
        (("--fleet", fleet, "--camera", "gaet", image), "did you mean 'gate'?"),
        (("--camera", "gate", adapter, image), "give its folder with --fleet"),
        (("--fleet", tmp_path, "--camera", "gate", image), "it is no fleet"),
        ((adapter,), "no images to predict on"),
    ):
        outcome = visionlora("predict", *arguments)
        assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") == 1


def test_an_export_wants_a_run_or_a_fleet(tmp_path: Path, adapter: Path, visionlora: Command) -> None:
    fleet, out = tmp_path / "fleet", tmp_path / "out"
    visionlora("fleet", "add", fleet, "gate", adapter)
    for arguments, words in (
        (("--to", "onnx"), "nothing to export"),
        ((adapter, "--to", "onnx", "--fleet", fleet), "not both"),
        (("--to", "timm", "--fleet", fleet), "can only be in one file --to onnx"),
        (("--to", "onnx", "--fleet", tmp_path), "it is no fleet"),
    ):
        outcome = visionlora("export", *arguments, "--out", out)
        assert outcome.code == 2 and words in outcome.err and not out.exists()
