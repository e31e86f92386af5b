"""``scripts/benchmark.py forecast``: finished studies, whose most labels are foretold from the fewer ones."""

import json
from pathlib import Path

import pytest

from benchmark import main
from visionlora.errors import InputError


def make_study(folder: Path, last: float, images: tuple[int, ...] = (10, 20, 40, 160)) -> Path:
    """Runs of two seeds on a power law, but for those with the most images."""
    runs = []
    for n in images:
        for seed in (0, 1):
            error = 0.8 * n**-0.4 * (1.02 if seed else 0.98)
            score = last if n == images[-1] else 1 - error
            runs.append({"method": "lora", "rank": 8, "images": n, "seed": seed, "score": score})
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"tested": 1000, "runs": runs}))
    return folder


def test_a_score_on_the_curve_holds_and_another_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on, off = make_study(tmp_path / "on", 1 - 0.8 * 160**-0.4), make_study(tmp_path / "off", 0.5)
    assert main(["forecast", str(on), str(off)]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 cases lie in the interval" in out
    (row,) = [line for line in out.splitlines() if "lora" in line and "yes" in line]
    assert "40 -> 160" in row and f"{1 - 0.8 * 160**-0.4:.3f}" in row


def test_three_numbers_of_labels_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs 4 numbers of labels or more"):
        main(["forecast", str(make_study(tmp_path / "few", 0.9, (10, 20, 40)))])
