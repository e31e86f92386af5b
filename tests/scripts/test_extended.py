"""``scripts/benchmark.py extended``, on a model that is small enough."""

import json
from pathlib import Path

import pytest

from benchmark import main


def test_the_command_shows_three_depths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "extended.json"
    assert main(["extended", "--model", "test_resnet", "--size", "32", "--rounds", "2", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 3 and all(row["ratio"] > 0 for row in rows)
    # The deeper it begins, the more is there once.
    assert rows[0]["shared"] < rows[1]["shared"] < rows[2]["shared"] < 1
    assert "layer3" in capsys.readouterr().out
