"""``scripts/benchmark.py keep-classes``, on a base and images that are small enough."""

import json
from pathlib import Path

from benchmark import main
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
