"""``scripts/benchmark.py fleet``: what it compares, on a model that is small enough."""

from pathlib import Path

import pytest

from benchmark import main
from benchmarks.fleet import cameras_of

pytest.importorskip("peft")


def test_the_command_prints_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--model", "test_resnet", "--size", "64", "--batch", "4", "--rounds", "2", "--adapters", "1", "2"]
    assert main(["fleet", *small, "--json", str(tmp_path / "fleet.json")]) == 0
    shown = capsys.readouterr().out
    ways = ("one adapter", "mixed, 1 adapters", "mixed, 2 adapters", "switching per image", "PEFT, 2 adapters")
    assert all(f"│ {way}" in shown for way in ways)
    assert "camera by camera" not in shown and (tmp_path / "fleet.json").is_file()


def test_images_have_as_many_cameras_as_there_are() -> None:
    assert cameras_of(4, ["a", "b"]) == ["a", "b", "a", "b"]
    assert len(set(cameras_of(16, [str(number) for number in range(64)]))) == 16
