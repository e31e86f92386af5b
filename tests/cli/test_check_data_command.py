"""``visionlora check-data``: what is printed, written and returned."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionlora.cli.check_data import check_data
from visionlora.errors import InputError


def write_set(folder: Path, bad_boxes: int = 0, crowd: int = 0) -> Path:
    """A COCO file with an image of two vans, one without objects, and boxes outside."""
    (folder / "images").mkdir(parents=True)
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"[{number}].jpg")
    sizes = {"width": 60, "height": 40}
    images = [{"id": n, "file_name": f"[{n}].jpg", "day": f"day {n}", **sizes} for n in (1, 2)]
    boxes = [[10, 10, 20, 10], [30, 20, 8, 8], *([70 + n, 0, 5, 5] for n in range(bad_boxes))]
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": crowd * (n == 2)}
        for n, box in enumerate(boxes, 1)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "[van]"}]}
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def run(path: Path, capsys: pytest.CaptureFixture[str], **options: object) -> tuple[int, str]:
    """The exit code and the words printed, on one line."""
    given = {"root": None, "by": None, "out": None, "fix": None, "every": False} | options
    code = check_data([path], **given)  # type: ignore[arg-type]
    return code, " ".join(capsys.readouterr().out.split())


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_a_sound_data_set_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(write_set(tmp_path), capsys)
    assert code == 0
    assert "annotations.json: COCO, 2 images, 2 objects (empty images: 1)" in text
    assert "image sizes in pixels: 2 of 60 x 40" in text
    assert "[van] 2 100.0%" in text
    assert "all 2 0 0 9/14/19 8/9/10 3/5.5/8 " in text
    assert "near-duplicates: none within a part" in text
    assert text.endswith("no errors: training takes this")
    assert "remarks" not in text


def test_parts_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = run(write_set(tmp_path), capsys, by="day")
    assert "part images objects empty images masks ignored" in text
    assert "day 1 1 2 0 0 0 day 2 1 0 1 0 0" in text
    assert "class objects share day 1 day 2" in text
    assert "[van] 2 100.0% 2 0" in text


def test_faults_are_counted_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_set(tmp_path, bad_boxes=5, crowd=1)
    code, text = run(path, capsys)
    assert code == 1
    assert "remarks: training takes these as they are (1) 1 x crowd" in text
    assert (
        "errors: training refuses these (5) 5 x box outside the image annotations.json, annotation 3: the box" in text
    )
    assert "annotation 5: the box" in text
    assert "annotation 6: the box" not in text
    assert "and 2 more: --all shows them" in text
    assert text.endswith("to write a mended copy: --fix FOLDER")
    _, everything = run(path, capsys, every=True)
    assert "annotation 7: the box" in everything
    assert "more: --all" not in everything


def test_remarks_alone_are_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(write_set(tmp_path, crowd=1), capsys)
    assert (code, text.endswith("no errors: training takes this")) == (0, True)


def test_the_report_is_written_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "reports" / "report.json"
    run(write_set(tmp_path / "set", bad_boxes=1), capsys, out=out)
    content = json.loads(out.read_text())
    assert [fault["kind"] for fault in content["faults"]] == ["box-outside"]
    assert content["parts"][0]["boxes"]["width"]["50"] == 14
    with pytest.raises(InputError, match="is a folder; give a file"):
        run(tmp_path / "set", capsys, out=tmp_path)


def test_a_mended_copy_is_announced_and_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mended"
    code, text = run(write_set(tmp_path / "set", bad_boxes=1), capsys, fix=out)
    assert code == 1  # of what was checked
    assert "mended: the mended copy, with 1 change, listed in its changes.txt" in text
    assert run(out, capsys)[0] == 0


def test_near_duplicates_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_set(tmp_path)
    (tmp_path / "images" / "[2].jpg").write_bytes((tmp_path / "images" / "[1].jpg").read_bytes())
    _, text = run(path, capsys)
    assert "near-duplicates: 1 burst of nearly equal images, 2 in all; the largest has 2, among them [1].jpg" in text
    _, text = run(path, capsys, by="day")
    assert "1 x near-duplicates in two parts" in text
    assert "1 of 1 images of day 2 nearly equal one of day 1" in text


def test_class_folders_are_described(squares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(squares, capsys)
    assert code == 0
    assert "class folders, 27 images image sizes in pixels: 27 of 32 x 32" in text
    assert "class images share train val" in text
    assert "green 9 33.3% 6 3" in text


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        run(tmp_path / "none.json", capsys)
