"""``scripts/benchmark.py run`` on a tiny model: every method trains, and the table shows where its time went."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmark import main
from benchmarks.run import PARTS, _table
from benchmarks.run_methods import METHODS, Ran
from helpers.runs import make_images

pytest.importorskip("peft")


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_and_says_what_it_cost(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_images(tmp_path / "data", train=8, val=2)
    tiny = ["--model", "test_resnet", "--size", "32", "--batch", "2", "--epochs", "2", "--rank", "2"]
    assert main(["run", *tiny, "--data", str(data), "--only", method]) == 0
    ran: Ran = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ran["parts"].keys() == set(PARTS)
    assert all(seconds > 0 for seconds in ran["parts"].values())
    assert ran["seconds"] == pytest.approx(sum(ran["parts"].values()))
    assert ran["images_per_s"] == pytest.approx(3 * 8 * 2 / ran["seconds"])
    assert ran["peak"] > 1e8


def test_ratios_are_those_of_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    def ran(speed: float) -> Ran:
        return Ran(seconds=4.0, images_per_s=speed, peak=2**20, parts={"data": 1.0, "forward": 3.0})

    runs = {"lora": [ran(30), ran(10), ran(20)], "full": [ran(10), ran(10), ran(10)]}
    Console(width=200).print(_table(runs))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "lora" in line]
    assert "20.0" in row and "2.00 (1.00-3.00)" in row and "25%" in row and "75%" in row
