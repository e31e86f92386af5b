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


@pytest.mark.parametrize(
    "name", ["frame_{:06d}.PNG", "images/frame_{:06d}.jpg", "site\\\\frame_{:06d}", "frame_{}.png"]
)
def test_names_as_cvat_gives_them_count_frames(tmp_path: Path, name: str) -> None:
    source = document(tmp_path / "boxes.json", [0, 6, 10])
    content = json.loads(source.read_text())
    for image in content["images"]:
        image["file_name"] = name.format(image.pop("frame"))
    source.write_text(json.dumps(content))
    extract_frames(VideoFrames(encode(tmp_path / "a.mp4", 12), 2), tmp_path / "out", source)
    data = read_annotations(tmp_path / "out" / "annotations.json")
    assert [image.path.name for image in data.images] == ["000000.jpg", "000006.jpg", "000010.jpg"]
    for image, number in zip(data.images, (0, 6, 10), strict=True):
        assert difference(np.asarray(Image.open(image.path)), scene(number)) < 3


def test_another_name_does_not_count_frames(tmp_path: Path) -> None:
    source = document(tmp_path / "boxes.json", [0])
    source.write_text(source.read_text().replace('"frame": 0', '"file_name": "yard_000010.png"'))
    with pytest.raises(InputError, match=r"images\[0\] has 'yard_000010.png' for its frame.*frame_000010.png"):
        extract_frames(VideoFrames(encode(tmp_path / "a.mp4", 12)), tmp_path / "out", source)


def test_of_several_videos_a_bad_one_is_named_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = encode(tmp_path / "first.mp4", 4), encode(tmp_path / "last.mkv", 6)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    assert frames([first, bad, last], tmp_path / "out", 2, None) == 1
    printed = capsys.readouterr().out
    assert f"passed over: {bad}: no video of a known format" in printed
    assert printed.rstrip().splitlines()[-1] == f"passed over because they can't be read: {bad}"
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg"))
    expected = [f"first/images/{n:06}.jpg" for n in (0, 2)] + [f"last/images/{n:06}.jpg" for n in (0, 2, 4)]
    assert found == expected


def test_what_cannot_be_said_of_several_videos_is_refused(tmp_path: Path) -> None:
    one, other = encode(tmp_path / "one.mp4", 3), encode(tmp_path / "one.mkv", 3)
    bad = tmp_path / "bad.mp4"
    bad.touch()
    with pytest.raises(InputError, match="would be the folder of several videos"):
        frames([one, other], tmp_path / "out", 1, None)
    with pytest.raises(InputError, match="counts the frames of one video"):
        frames([one, bad], tmp_path / "out", 1, tmp_path / "boxes.json")
    with pytest.raises(InputError, match="no video of a known format"):
        frames([bad], tmp_path / "out", 1, None)
    with pytest.raises(InputError, match="none of the 2 videos can be read"):
        frames([bad, tmp_path / "none.mp4"], tmp_path / "out", 1, None)
    assert not (tmp_path / "out").exists()


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
    assert frames([path], tmp_path / "out", 1, None) == 0
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
