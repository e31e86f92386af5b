"""``visionlora check-data --draw``: annotations of every task as pictures."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_sets import box, write_coco, write_image
from helpers.mask_sets import COLORS, labels, paint, save, write_set
from visionlora.cli.draw_data import draw_data
from visionlora.cli.main import main
from visionlora.data.checks.check_data import check
from visionlora.data.checks.survey import Survey
from visionlora.errors import InputError
from visionlora.tasks.drawing import class_color


def survey(path: Path) -> Survey:
    found: list[Survey] = []
    check(path, on_survey=found.append)
    return found[0]


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=2).any())


def test_boxes_and_masks_are_drawn_where_they_are(tmp_path: Path) -> None:
    ring = [10, 10, 30, 10, 30, 20, 10, 20]
    path = write_coco(tmp_path / "set", lambda document: document.update(annotations=[box(1, segmentation=[ring])]))
    assert draw_data(survey(path), 9, tmp_path / "drawn") == 2
    drawn = pictures(tmp_path / "drawn")
    assert list(drawn) == ["1_1.png", "2_2.png"]
    first, plain = drawn["1_1.png"], drawn["2_2.png"]
    scale = 8  # 60 x 40 are shown as 480 x 320
    assert first.shape == (320, 480, 3)
    frame = [tuple(first[15 * scale, 10 * scale + shift].tolist()) for shift in (0, 1)]
    assert set(frame) == {class_color(0)}  # the van's left edge
    inside = first[12 * scale : 18 * scale, 14 * scale : 26 * scale].astype(int)
    original = np.asarray(Image.open(tmp_path / "set/images/1.jpg")).repeat(scale, axis=0).repeat(scale, axis=1)
    expected = 0.6 * original[12 * scale : 18 * scale, 14 * scale : 26 * scale] + 0.4 * np.array(class_color(0))
    assert np.abs(inside - expected).max() <= 1
    untouched = np.asarray(Image.open(tmp_path / "set/images/2.jpg")).repeat(scale, axis=0).repeat(scale, axis=1)
    assert (plain == untouched).all()


def test_classes_of_pixels_lie_over_their_image(tmp_path: Path) -> None:
    for part in ("train", "val"):
        images, masks = write_set(tmp_path / "set" / part, 2)
        for seed in (0, 1):
            save(masks / f"{seed}.png", paint(labels(seed)))
            save(images / f"{seed}.jpg", np.zeros((8, 12, 3), np.uint8))
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(("road", "car", "wall"), COLORS, strict=True)]
    (tmp_path / "set" / "labelmap.txt").write_text("\n".join(lines))
    assert draw_data(survey(tmp_path / "set"), 3, tmp_path / "drawn") == 3
    drawn = pictures(tmp_path / "drawn")
    assert list(drawn) == ["train/1_0.png", "train/2_1.png", "val/3_0.png"]
    scale = 40
    halves = (drawn["train/1_0.png"][scale // 2 :: scale, scale // 2 :: scale].astype(int) * 2)[2:]
    right = np.abs(halves - paint(labels(0))[2:]).max(axis=2) <= 2
    assert right.mean() > 0.6  # the rest is under names


def test_class_folders_and_tables_show_their_labels(tmp_path: Path) -> None:
    for number, name in enumerate(("car", "van")):
        write_image(tmp_path / "set" / name / "1.jpg", number)
    assert draw_data(survey(tmp_path / "set"), 2, tmp_path / "drawn") == 2
    first, second = pictures(tmp_path / "drawn").values()
    assert has(first, class_color(0)) and not has(first, class_color(1))
    assert has(second, class_color(1)) and not has(second, class_color(0))
    (tmp_path / "set" / "l.csv").write_text("path,car,van\ncar/1.jpg,1,1\nvan/1.jpg,0,0")
    draw_data(survey(tmp_path / "set" / "l.csv"), 2, tmp_path / "again")
    both, none = pictures(tmp_path / "again").values()
    assert has(both, class_color(0)) and has(both, class_color(1))
    assert not has(none, class_color(0))


def test_they_are_spread_over_the_data(tmp_path: Path) -> None:
    for number in range(20):
        write_image(tmp_path / "set" / ("car" if number < 10 else "van") / f"{number:02}.jpg", number)
    draw_data(survey(tmp_path / "set"), 4, tmp_path / "drawn")
    assert [name.partition("_")[2] for name in pictures(tmp_path / "drawn")] == ["00.png", "05.png", "10.png", "15.png"]


def test_the_command_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    for arguments, folder in ((), "drawn"), (("--drawings", "x/y"), "x/y"):
        monkeypatch.setattr(sys, "argv", ["visionlora", "check-data", "set", "--draw", "1", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        assert f"{folder}: 1 image with the annotations drawn" in capsys.readouterr().out
        assert len(pictures(tmp_path / folder)) == 1
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--drawings x/y: is not empty; give another folder" in capsys.readouterr().err


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    path = write_coco(tmp_path, lambda document: document.update(images=[], annotations=[]))
    with pytest.raises(InputError, match="there is no image to be drawn"):
        draw_data(survey(path), 1, tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()
