"""``scripts/benchmark.py pick``: as many frames for each way, and a score of each."""

import json
from pathlib import Path

import pytest

from benchmark import main
from benchmarks import pick
from visionlora.demo.annotated import write_annotated
from visionlora.demo.base import base_path
from visionlora.demo.camera import NIGHT


def test_every_way_chooses_as_many_frames_and_a_run_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_annotated(tmp_path / "yard", NIGHT, {"monday": 2, "tuesday": 1, "friday": 1}, seed=1)
    chosen: list[list[int]] = []
    plain = pick._choose

    def watched(*given: object) -> list[dict[str, int]]:
        found: list[dict[str, int]] = plain(*given)  # type: ignore[arg-type]
        chosen.append([image["id"] for image in found])
        return found

    monkeypatch.setattr(pick, "_choose", watched)
    days = ["--days", "monday", "--val", "tuesday", "--test", "friday", "--root", str(tmp_path / "yard" / "images")]
    small = ["model.backbone=test_resnet", "model.size=64", "model.levels=[3,4,5]", "train.epochs=1", "data.workers=0"]
    known = ["--model", "test_resnet", "--checkpoint", str(base_path()), "--json", str(tmp_path / "scores.json")]
    count = ["--count", "5", "--seeds", "3", "--ways", "random"]
    assert main(["pick", str(tmp_path / "yard" / "annotations.json"), *days, *known, *count, "--set", *small]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [(each["way"], each["seed"]) for each in scores] == [("random", 3)]
    assert all(0 <= each["AP50"] <= 1 for each in scores)
    assert "5 of 12 frames" in capsys.readouterr().out
    monkeypatch.setattr(pick, "_train", lambda *given: {"AP50": 0.5, "mAP": 0.2})  # the other ways only choose
    count[-1:] = ["pick", "even", "random"]
    assert main(["pick", str(tmp_path / "yard" / "annotations.json"), *days, *known, *count]) == 0
    assert [len(set(ids)) for ids in chosen] == [5, 5, 5, 5]
    assert chosen[0] == chosen[3] and len({tuple(ids) for ids in chosen}) == 3
