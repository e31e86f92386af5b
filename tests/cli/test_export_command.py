"""``visionlora export``, and ``predict`` with what it wrote."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from helpers.squares import Command
from visionlora.data.images import read_image

ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("to", ["timm", "onnx"])
def test_an_exported_run_predicts_and_scores_what_the_run_does(
    to: str, visionlora: Command, trained: Path, squares: Path, tmp_path: Path
) -> None:
    before, out = contents(trained), tmp_path / "exported"
    outcome = visionlora("export", trained, "--to", to, "--out", out, "--rounds", 1)
    assert outcome.code == 0, outcome.err
    assert "24 logits of 8 validation images of the run" in outcome.out
    for state in ("base", "adapted", "merged", "exported"):
        assert state in outcome.out
    assert contents(trained) == before
    answers = []
    for model in (trained, out):
        file = tmp_path / f"{model.name}.json"
        assert visionlora("predict", model, squares / "val", "--out", file).code == 0
        answers.append(json.loads(file.read_text()))
    assert len(answers[0]) == 9
    for expected, found in zip(*answers, strict=True):
        assert [name for name, _ in found["labels"]] == [name for name, _ in expected["labels"]]
        assert [p for _, p in found["labels"]] == pytest.approx([p for _, p in expected["labels"]], abs=1e-5)
    assert found["image"] == expected["image"]

    scores = []
    for model in (trained, out):
        file = tmp_path / f"{model.name}_scores.json"
        outcome = visionlora("eval", model, f"data.root={squares}", "--part", "val", "--out", file)
        assert outcome.code == 0, outcome.err
        scores.append(json.loads(file.read_text())["scores"])
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)


def test_the_card_has_the_runs_scores_cost_and_figures(
    visionlora: Command, trained: Path, squares: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exported"
    assert visionlora("export", trained, "--to", "timm", "--out", out, "--rounds", 1).code == 0
    card, report = (out / "README.md").read_text(), json.loads((trained / "report.json").read_text())
    assert f"| top1 | {report['scores']['top1']:.4f} |" in card
    for name, values in report["per_class"].items():
        assert f"| {name} | " + " | ".join(f"{value:.3f}" for value in values.values()) in card
    assert f"parameters trained: {report['trainable']:,}" in card
    assert "random: nothing was pretrained" in card
    assert f"- root: {squares.name}" in card
    assert str(squares) not in card
    figures = sorted(path.name for path in (out / "figures").iterdir())
    assert figures == ["confusion_matrix.png", "predictions.png"]
    for name in figures:
        assert f"(figures/{name})" in card
        assert read_image(out / "figures" / name).size > 10_000


def test_other_images_than_the_runs_can_be_given(
    visionlora: Command, trained: Path, squares: Path, tmp_path: Path
) -> None:
    given = squares / "train" / "red"
    outcome = visionlora("export", trained, "--to", "timm", "--out", tmp_path / "out", "--images", given)
    assert "18 logits of 6 given images" in outcome.out


def test_a_refusal_is_one_line(visionlora: Command, trained: Path, tmp_path: Path) -> None:
    outcome = visionlora("export", trained, "--to", "tim", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err == (
        "error: --to tim: unknown format (did you mean 'timm'?); there are timm, torchvision, onnx, onnx-heads\n"
    )


def test_the_script_does_the_same(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, out = ROOT / "scripts" / "export.py", tmp_path / "out"
    monkeypatch.setattr(sys, "argv", [str(script), str(trained), "--to", "timm", "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    assert stopped.value.code == 0
    assert "exported" in capsys.readouterr().out
    assert (out / "model.safetensors").is_file()
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    assert stopped.value.code == 2
    assert "is not empty" in capsys.readouterr().err
