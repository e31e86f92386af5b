"""Frames become images that are named after their number, with the annotations that count them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.clips import HEIGHT, WIDTH, difference, encode, scene
from visionlora.cli.frames import frames
from visionlora.data.annotations.layouts import read_annotations
from visionlora.data.video import VideoFrames
from visionlora.errors import InputError
from visionlora.footage.frames import extract_frames

ONE = {"id": 1, "category_id": 3, "bbox": [8, 9, 20, 30], "area": 600, "iscrowd": 0}


def document(path: Path, numbers: list[Any], **image: Any) -> Path:
    """A box in each of these frames; image 10 + n is the frame n."""
    path.write_text(
        json.dumps(
            {
                "info": {"site": "yard"},
                "images": [{"id": 10 + place, "frame": n, **image} for place, n in enumerate(numbers)],
                "annotations": [{**ONE, "id": place, "image_id": 10 + place} for place in range(len(numbers))],
                "categories": [{"id": 3, "name": "van"}],
            }
        )
    )
    return path


@pytest.mark.parametrize(("every", "numbers"), [(1, list(range(12))), (5, [0, 5, 10])])
def test_frames_are_named_after_their_number_and_look_like_it(tmp_path: Path, every: int, numbers: list[int]) -> None:
    video = VideoFrames(encode(tmp_path / "a.mp4", 12), every)
    assert extract_frames(video, tmp_path / "out") == (len(numbers), "")
    files = sorted((tmp_path / "out" / "images").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.jpg" for number in numbers]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["images"]
    for number, file, frame in zip(numbers, files, video, strict=True):
        image = np.asarray(Image.open(file))
        assert difference(image, frame.image) < 2
        assert difference(image, scene(number)) < 3 < difference(image, scene(number + 5))


def test_annotations_follow_their_frames(tmp_path: Path) -> None:
    source = document(tmp_path / "boxes.json", [0, 3, 4, 6, 11], width=WIDTH, height=HEIGHT, camera="north")
    extract_frames(VideoFrames(encode(tmp_path / "a.mp4", 12), 3), tmp_path / "out", source)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 4
    data = read_annotations(tmp_path / "out" / "annotations.json")
    assert [image.path.name for image in data.images] == ["000000.jpg", "000003.jpg", "000006.jpg"]
    assert [image.fields["camera"] for image in data.images] == ["north"] * 3
    assert [image.objects[0].box for image in data.images] == [(8, 9, 28, 39)] * 3
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert content["info"] == {"site": "yard"}
    assert [thing["image_id"] for thing in content["annotations"]] == [10, 11, 13]


REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "no number": (["a"], {}, r"images\[0\] has 'a' for its frame"),
    "a truth value": ([True], {}, r"images\[0\] has True for its frame"),
    "negative": ([0, -1], {}, r"images\[1\] has -1 for its frame"),
    "twice": ([4, 4], {}, r"images\[1\]: frame 4 is there already"),
    "another video": ([0, 12], {}, "describes frame 12, and .*a.mp4 has 12 frames"),
    "another size": ([0], {"width": 640}, r"images\[0\] is 640 x 64 pixels, and .*a.mp4 is 96 x 64"),
    "none of those taken": ([1, 2], {}, "describes none of the 3 frames taken"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_annotations_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path: Path, case: str) -> None:
    numbers, image, message = REFUSED[case]
    source = document(tmp_path / "boxes.json", numbers, **image)
    video = VideoFrames(encode(tmp_path / "a.mp4", 12), 5)
    with pytest.raises(InputError, match=message) as caught:
        extract_frames(video, tmp_path / "out", source)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"boxes.json", "a.mp4"}


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="no empty folder"):
        extract_frames(VideoFrames(encode(tmp_path / "a.mp4", 3)), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_what_is_damaged_is_told_and_the_rest_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = encode(tmp_path / "a.avi", 60, "mpeg4", noise=60)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    path.write_bytes(content)
    frames(path, tmp_path / "out", 1, None)
    printed = capsys.readouterr().out
    assert "damaged" in printed
    assert f"59 frames of 96 x 64 pixels in {tmp_path}/out/images" in printed
    assert len(list((tmp_path / "out" / "images").iterdir())) == 59


def test_the_kits_campus_can_be_trained_on(tmp_path: Path, kit: Path) -> None:
    folder = kit / "data" / "pets2009_s2l1"
    extract_frames(VideoFrames(folder / "vtest.avi", 100), tmp_path / "out", folder / "annotations.json")
    content = json.loads((folder / "annotations.json").read_text())
    wanted = {image["id"] for image in content["images"] if image["frame"] % 100 == 0}
    boxes = [thing for thing in content["annotations"] if thing["image_id"] in wanted]
    written = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert len(written["images"]) == len(wanted) == 8
    assert written["annotations"] == boxes
