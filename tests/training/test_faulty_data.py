"""A run past single faults: what was left out is told, counted and listed."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from helpers.detection_runs import make_detection_config, make_scenes
from visionlora.errors import InputError
from visionlora.training.run import train


def test_a_run_past_faults_tells_and_lists_them(tmp_path: Path) -> None:
    path = make_scenes(tmp_path / "scenes")
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"][2] = 0
    document["images"][5]["width"] += 1
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="2 faults"):
        train(make_detection_config(path, tmp_path / "refused", epochs=1))
    said = io.StringIO()
    config = make_detection_config(path, tmp_path / "run", data={"faulty": "leave_out"}, epochs=1)
    result = train(config, console=Console(file=said, width=200))
    assert "on 11 images" in said.getvalue()
    assert "2 faults of the annotations mended or left out (all are in report.json):" in said.getvalue()
    listed = json.loads((tmp_path / "run" / "report.json").read_text())["faulty"]
    assert listed == result.faulty
    assert sorted(line.rpartition(" -> ")[2] for line in listed) == ["annotation dropped", "image left out"]


def test_a_run_takes_a_list_of_files(tmp_path: Path) -> None:
    """As on the command line: data.annotations=[train.json,val.json]."""
    paths = []
    for part, images in (("train", 8), ("val", 4)):
        path = make_scenes(tmp_path / part, train=images, val=0)
        paths.append(str(path.rename(path.with_name(f"{part}.json"))))
    data = {"annotations": paths, "train": None, "val": None}
    result = train(make_detection_config(Path(), tmp_path / "run", data=data, epochs=1))
    assert result.faulty == []
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert all(path in config for path in paths)
