"""``scripts/benchmark.py keep-classes``, on a base and images that are small enough."""

import json
from pathlib import Path

import pytest

from benchmark import main
from benchmarks.keep_classes import WAYS
from helpers.detection_runs import BASE, make_scenes
from helpers.new_classes import make_new
from helpers.runs import COLOURS, make_images
from visionlora.demo.base import base_path


def test_photos_are_scored_alone_beside_the_base_and_distilled(tmp_path: Path) -> None:
    new, out, known = make_new(tmp_path / "new", train=4, val=2), tmp_path / "rows.json", tmp_path / "known"
    squares = sorted((make_images(tmp_path / "old", train=1, val=2) / "val").rglob("*.png"))
    assert len(squares) == 2 * len(COLOURS)
    known.mkdir()
    for index, square in enumerate(squares):  # one for each of the six classes of the base
        (known / f"{index}.jpg").write_bytes(square.read_bytes())
    settings = ["model.img_size=32", "train.epochs=1", "train.batch_size=4", "data.workers=0"]
    given = ["photos", str(new), "--model", "test_resnet", "--checkpoint", str(base_path()), "--known", str(known)]
    assert main(["keep-classes", *given, "--seeds", "0", "--json", str(out), "--set", *settings]) == 0
    rows = {row["way"]: row for row in json.loads(out.read_text())}
    assert rows["base beside it"]["identical"] is True and rows["base"]["identical"] is True
    assert 0 <= rows["distilled"]["agreement"] <= 1 and rows["base"]["taken"] == 0
    assert set(rows) == {"ordinary adapter", "base beside it", "distilled", "base"}


def test_detectors_are_trained_once_and_scored_by_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = make_scenes(tmp_path / "scenes", train=4, val=6)
    model = {**BASE, "levels": [3, 4, 5], "fpn_channels": 32, "head_convs": 1, "size": 96}
    model |= {"mean": list(BASE["mean"]), "std": list(BASE["std"])}
    settings = [f"model.{key}={value}" for key, value in model.items() if key != "checkpoint"]
    settings += ["train.epochs=1", "train.evaluate_every=1", "train.batch_size=4", "data.workers=0"]
    command = ["keep-classes", "boxes", str(annotations), "--root", str(annotations.parent), "--seeds", "0"]
    command += ["--checkpoint", BASE["checkpoint"], "--old", "red", "--new", "blue", "--runs", str(tmp_path / "runs")]
    command += ["--days", "monday", "--val", "friday", "--test", "friday", "--ways", *WAYS]
    command += ["--json", str(tmp_path / "rows.json"), "--set", *settings]
    assert main(command) == 0
    rows = {row["way"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    beside = ["base beside it", "base beside it, without an adapter on the backbone"]
    from_the_base = [*beside, "distilled", "fine-tuned on the new"]
    assert list(rows) == ["base", "both at once", "new class alone", *from_the_base]
    assert all(rows[way]["identical"] is True for way in beside)
    assert "new AP50" not in rows["base"] and "old AP50" not in rows["new class alone"]  # they have no such class
    assert all(0 <= rows[way]["old AP50"] <= 1 for way in ("base", "both at once", "base beside it"))
    assert rows["base beside it"]["old AP50"] == pytest.approx(rows["base"]["old AP50"])

    monkeypatch.setattr("benchmarks.keep_classes.train", lambda *_given, **_named: pytest.fail("trained again"))
    assert main(command) == 0
    again = {row["way"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert [again[way]["new AP50"] for way in list(rows)[1:]] == [rows[way]["new AP50"] for way in list(rows)[1:]]
