"""``scripts/solar_cells.py``: the parts of a split share no cell, and each likelihood and kind is in both."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from solar_cells import main


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """16 cells of each likelihood and kind, as the package has them; an image's bytes say what it is."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    lines = []
    groups = itertools.product((0.0, 1 / 3, 2 / 3, 1.0), ("mono", "poly"), range(16))
    for index, (likelihood, kind, _) in enumerate(groups):
        (folder / "images" / f"cell{index:04}.png").write_text(f"{likelihood:.2f} {kind}")
        lines.append(f"images/cell{index:04}.png  {likelihood}  {kind}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_quarter_of_each_likelihood_and_kind_is_tested(package: Path, tmp_path: Path) -> None:
    assert main([str(package), "--out", str(tmp_path / "cells")]) == 0
    parts = {part: sorted((tmp_path / "cells" / part).rglob("*.png")) for part in ("train", "val")}
    assert not {path.name for path in parts["train"]} & {path.name for path in parts["val"]}
    for part, of_each in (("train", 12), ("val", 4)):
        counts = Counter((path.parent.name, path.read_text()) for path in parts[part])
        assert len(counts) == 8 and set(counts.values()) == {of_each}
        assert all((name == "defective") == (float(text.split()[0]) > 0.5) for name, text in counts)


def test_of_the_sure_ones_so_many_of_each_class(package: Path, tmp_path: Path) -> None:
    assert main([str(package), "--out", str(tmp_path / "sure"), "--sure", "5", "7"]) == 0
    cells = [(path.parts[-3], path.parts[-2], path.read_text()[:4]) for path in (tmp_path / "sure").rglob("*.png")]
    assert Counter((part, name) for part, name, _ in cells) == {
        **{("train", name): 5 for name in ("functional", "defective")},
        **{("val", name): 7 for name in ("functional", "defective")},
    }
    assert {text for _, _, text in cells} == {"0.00", "1.00"}
