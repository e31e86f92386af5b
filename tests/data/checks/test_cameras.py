"""What each camera has and lacks, in every layout whose images a list of frames knows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_sets import box, entry, write_image
from helpers.frame_lists import write_frame_list
from helpers.mask_sets import write_set
from visionlora.cli.check_data import check_data
from visionlora.data.checks.check_data import check
from visionlora.data.checks.mask_survey import MaskFiles
from visionlora.data.classification.class_folders import class_folders
from visionlora.errors import InputError


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """Two cameras in turn; the yard shows no car, and is never seen at night."""
    for number in range(8):
        write_image(tmp_path / "images" / f"{number}.jpg", number)
    paths = [tmp_path / "images" / f"{number}.jpg" for number in range(8)]
    write_frame_list(tmp_path, paths, lights=("day", "night"))
    lines = (tmp_path / "frames.jsonl").read_text().splitlines()
    lines = [line.replace('"night"', '"day"') if '"yard"' in line else line for line in lines]
    (tmp_path / "frames.jsonl").write_text("\n".join(lines))
    images = [entry(number) for number in range(8)]
    things = [box(n + 1, image=n, category=7 if n % 4 == 0 else 1) for n in range(8)]
    categories = [{"id": 1, "name": "van"}, {"id": 7, "name": "car"}]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": things, "categories": categories}))
    return path


def test_annotated_cameras(boxes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(boxes)
    gate, yard = report.cameras
    assert (gate.name, gate.images, gate.days, gate.lacks) == ("gate", 4, 1, [])
    assert (gate.lights, yard.lights) == ({"day": 2, "night": 2, "infrared": 0}, {"day": 4, "night": 0, "infrared": 0})
    assert yard.lacks == ["car"]
    lacks = [fault.message for fault in report.remarks if fault.kind == "camera-lacks"]
    assert lacks == [
        "camera yard shows no car, which others do",
        "camera yard has no image at night, nor infrared",
    ]
    assert [part.name for part in check(boxes, by="light").parts] == ["day", "night"]
    check_data([boxes], None, "camera", None, None, every=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "gate 4 1 2 2 0" in printed and "yard 4 1 4 0 0 car" in printed


def test_the_list_may_lie_elsewhere(boxes: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "frames.jsonl", tmp_path / "list.jsonl")
    assert check(boxes).cameras == []
    assert [camera.name for camera in check(boxes, frames=tmp_path / "list.jsonl").cameras] == ["gate", "yard"]


def test_class_folders_by_camera_and_what_they_share(tmp_path: Path) -> None:
    """A burst in one camera's part and the other's shows as near-duplicates across them."""
    paths = []
    for number in range(6):
        paths.append(tmp_path / "train" / ("car" if number < 3 else "van") / f"{number}.jpg")
        write_image(paths[-1], number)
    shutil.copy(paths[0], paths[1])
    write_frame_list(tmp_path, paths)
    report = check(tmp_path, by="camera")
    assert {part.name: part.images for part in report.parts} == {"gate": 3, "yard": 3}
    assert {part.name: {name: each.images for name, each in part.classes.items()} for part in report.parts} == {
        "gate": {"car": 2, "van": 1},
        "yard": {"car": 1, "van": 2},
    }
    assert [(leak.first, leak.second, leak.images) for leak in report.leaks] == [("gate", "yard", 1)]
    (advice,) = [fault.message for fault in report.remarks if fault.kind == "frames"]
    assert "give data.split_by=camera, day or time" in advice
    with pytest.raises(InputError, match=r"--by lihgt: no image has such a field \(did you mean 'light'"):
        check(tmp_path, by="lihgt")


def test_masks_by_light(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path / "set", 6)
    (tmp_path / "classes.yaml").write_text("[road, car, wall]")
    write_frame_list(images, sorted(images.iterdir()), lights=("day", "infrared"))
    report = check(images, by="light", masks=MaskFiles(tmp_path / "classes.yaml", masks))
    assert {part.name: part.images for part in report.parts} == {"day": 4, "infrared": 2}
    assert [camera.name for camera in report.cameras] == ["gate", "yard"]


def test_frames_that_nobody_has_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        write_image(tmp_path / "images" / f"{number}.jpg", number)
    write_frame_list(tmp_path, [tmp_path / "images" / f"{number}.jpg" for number in range(4)])
    (tmp_path / "recordings").mkdir()
    assert check_data([tmp_path], None, None, None, None, every=False) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "frames of recordings, 4 images" in printed and "none of 4 frames has a label" in printed
    assert [camera.images for camera in check(tmp_path).cameras] == [2, 2]
    with pytest.raises(InputError, match="holds frames of recordings, and no labels"):
        class_folders(tmp_path)


def test_without_cameras_there_is_no_table(tmp_path: Path) -> None:
    for name in ("car", "van"):
        (tmp_path / name).mkdir()
        for number in range(2):
            noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{number}.png")
    assert check(tmp_path).cameras == []
