"""A classifier is trained, scored and resumed on frames that are split by camera."""

import json
from pathlib import Path

from helpers.frame_lists import write_frame_list
from helpers.squares import Command, write_config, write_squares


def test_frames_are_split_by_camera_from_training_to_scoring(tmp_path: Path, visionlora: Command) -> None:
    root = tmp_path / "squares"
    write_squares(root, 4, seed=0)
    write_frame_list(root, sorted(root.rglob("*.png")))
    config = write_config(tmp_path, root)
    refused = visionlora("train", "--config", config)
    assert (refused.code, "12 of 12 images are frames of recordings" in refused.err) == (2, True)
    done = visionlora("train", "--config", config, "data.split_by=camera")
    assert done.code == 0, done.err
    assert "6 images of 3 classes, 6 to validate" in done.out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    for part in ((), ("--part", "camera=yard")):
        scored = visionlora("eval", tmp_path / "run", *part, "--out", tmp_path / "scores.json")
        assert scored.code == 0, scored.err
        scores = json.loads((tmp_path / "scores.json").read_text())
        assert (scores["images"], scores["scores"]) == (6, report["scores"])
    assert json.loads((tmp_path / "scores.json").read_text())["skipped"] == []
    chosen = visionlora(
        "train", "--config", config, "data.train.camera=[yard]", "data.val.camera=[gate]", f"out={tmp_path / 'other'}"
    )
    assert chosen.code == 0, chosen.err
    missing = visionlora("eval", tmp_path / "run", "--part", "camera=dock")
    assert (missing.code, "no image has camera 'dock'" in missing.err) == (2, True)
