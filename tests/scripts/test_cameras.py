"""``scripts/benchmark.py drift`` and ``recalibration``: every cell is measured, on little."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import main
from benchmarks.corruptions import CORRUPTIONS
from helpers.squares import write_squares
from helpers.street_camera import street_frame
from visionlora.footage.drift import WINDOW


def test_alarms_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    for number in range(60):
        Image.fromarray(street_frame(number, generator)).save(tmp_path / f"{number:03}.png")
    assert main(["drift", str(tmp_path), "--share", "0.5"]) == 0
    header, row = capsys.readouterr().out.splitlines()[1:]
    assert header.split() == ["footage", "to", "fit", "clean", *CORRUPTIONS]
    windows = 30 // WINDOW
    cells = row.split()[1:]
    assert cells[:2] == ["30", f"0/{windows}"]
    assert " ".join(cells[2:]) == " ".join([f"{windows}/{windows} ({windows})"] * len(CORRUPTIONS))


def test_each_way_is_scored_for_each_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_squares(tmp_path / "train", 4, seed=0)
    write_squares(tmp_path / "val", 2, seed=1)
    options = ("--model", "test_resnet", "--size", "32", "--labelled", "2", "--epochs", "1", "--seeds", "0")
    assert main(["recalibration", str(tmp_path), *options, "--corruptions", "night"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows[0] == ["before", "recalibrated", "LoRA", "both"]
    assert [row[0] for row in rows[1:]] == ["clean", "night"]
    assert len(rows[2]) == 1 + 4 * 2 and all(re.fullmatch(r"[01]\.\d{3}", cell) for cell in rows[2][1:])
