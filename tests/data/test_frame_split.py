"""What validates is a whole camera, day or block, with nothing near it in training: for every task."""

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.annotation_sets import box, entry, write_image
from helpers.frame_lists import write_frame_list
from helpers.mask_sets import write_set
from visionlora.data.annotations.split import choose_part, load_annotated_split, read_annotated
from visionlora.data.classification.split import load_split, read_part
from visionlora.data.frame_split import split_frames
from visionlora.data.segmentation.split import load_segmented_split, read_segmented_part
from visionlora.errors import InputError
from visionlora.sections import ClassificationData, SegmentationData
from visionlora.tasks.detection.config import DetectionData


def frame(minute: float, camera: str = "gate", day: int = 1, **fields: Any) -> dict[str, Any]:
    whole = int(minute * 60)
    time = f"2024-05-{day:02}T{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.000"
    return {"camera": camera, "time": time, "day": time[:10], "recording": "a", **fields}


FOOTAGE = [frame(minute, camera, day) for camera, day, minute in product(["gate", "yard"], [1, 2, 3], range(20))]


def chosen(indices: list[int], name: str) -> set[str]:
    return {FOOTAGE[index][name] for index in indices}


@pytest.mark.parametrize("by", ["camera", "day"])
def test_whole_cameras_and_days_validate(by: str) -> None:
    train, val = split_frames(FOOTAGE, by, 0.2)
    assert chosen(val, by) == {"yard" if by == "camera" else "2024-05-03"}
    assert chosen(train, by) == chosen(list(range(len(FOOTAGE))), by) - chosen(val, by)
    assert sorted([*train, *val]) == list(range(len(FOOTAGE)))
    more = split_frames(FOOTAGE, "day", 0.5)[1]
    assert chosen(more, "day") == {"2024-05-02", "2024-05-03"}
    assert chosen(split_frames(FOOTAGE, by, 0.99)[0], by) != set()


@pytest.mark.parametrize(("block", "gap"), [(300.0, 0.0), (300.0, 60.0), (120.0, 90.0), (600.0, 180.0)])
def test_blocks_of_time_validate_and_their_neighbours_are_in_no_part(block: float, gap: float) -> None:
    """Against all pairs."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(FOOTAGE)).tolist()
    footage = [FOOTAGE[index] for index in order]
    train, val = split_frames(footage, "time", 0.25, block, gap)
    minutes = [int(each["time"][14:16]) for each in footage]
    same = [(each["camera"], each["day"]) for each in footage]
    near = {
        i
        for i, j in product(range(len(footage)), val)
        if same[i] == same[j] and abs(minutes[i] - minutes[j]) * 60 <= gap
    }
    assert train == [i for i in range(len(footage)) if i not in val and i not in near]
    assert not set(train) & set(val) and train and val
    # Both cameras validate, and a block validates whole.
    assert {footage[i]["camera"] for i in val} == {"gate", "yard"}
    blocks = {(*same[i], int(minutes[i] * 60 // block)) for i in val}
    assert [i for i in range(len(footage)) if (*same[i], int(minutes[i] * 60 // block)) in blocks] == val
    if gap == 0:
        assert 0.15 < len(val) / len(footage) < 0.4


def test_midnight_is_no_gap() -> None:
    footage = [frame(1439.9, day=1), frame(0, day=1), frame(0.0, day=2), frame(5, day=2)]
    assert split_frames(footage, "day", 0.2, gap=30) == ([1], [2, 3])
    assert split_frames(footage, "day", 0.2, gap=0) == ([0, 1], [2, 3])


def test_recordings_without_a_time_are_timelines_of_their_own() -> None:
    footage = [{"recording": name, "seconds": 10.0 * n, "camera": "gate"} for name in "ab" for n in range(8)]
    train, val = split_frames(footage, "time", 0.25, block=20, gap=10)
    assert val == [6, 7, 14, 15]
    assert train == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]


REFUSED: dict[str, tuple[list[dict[str, Any]], str, dict[str, float], str]] = {
    "one camera": ([frame(1), frame(2)], "camera", {}, "all frames are of one camera, gate"),
    "one day": ([frame(1), frame(2)], "day", {}, "all frames are of one day"),
    "one block": ([frame(1), frame(2)], "time", {"block": 3600.0}, "no camera's time has two blocks of 3600 s"),
    "no day": ([frame(1), {"camera": "gate"}], "day", {}, "not every image has a day; data.split_by=time does without"),
    "no time": ([{"camera": "gate"}] * 2, "time", {}, "not every image has a time"),
    "all near": (
        [frame(1), frame(2)],
        "time",
        {"block": 60.0, "gap": 60.0},
        "all are within 60 s of one that validates",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_split_is_refused(case: str) -> None:
    footage, by, settings, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        split_frames(footage, by, 0.2, **settings)


def test_other_peoples_times_are_passed_by() -> None:
    """A COCO file's images may have a field of that name that is no time."""
    footage = [{"day": str(n // 2), "time": "noon"} for n in range(6)]
    assert split_frames(footage, "day", 0.2) == ([0, 1, 2, 3], [4, 5])


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes, 10 images each, in turn of two cameras, a minute from one to the next."""
    root = tmp_path / "classes"
    paths = []
    for number in range(10):
        for name in ("car", "van"):
            paths.append(root / name / f"{name}_{number}.jpg")
            write_image(paths[-1], 10 * number + (name == "car"))
    write_frame_list(root, [path for name in ("car", "van") for path in paths if path.parent.name == name])
    return root


def cameras_of(paths: list[Path], root: Path) -> set[str]:
    lines = [json.loads(line) for line in (root / "frames.jsonl").read_text().splitlines()]
    by_name = {Path(line["file"]).name: line["camera"] for line in lines}
    return {by_name[path.name] for path in paths}


def test_classified_frames_by_camera_and_by_time(classes: Path) -> None:
    split = load_split(ClassificationData(root=classes, split_by="camera"), seed=0)
    assert (cameras_of(split.train.paths, classes), cameras_of(split.val.paths, classes)) == ({"gate"}, {"yard"})
    assert (len(split.train), len(split.val)) == (10, 10)
    timed = load_split(ClassificationData(root=classes, split_by="time", block_seconds=120, gap_seconds=30), seed=0)
    assert not set(timed.train.paths) & set(timed.val.paths)
    assert cameras_of(timed.val.paths, classes) == {"gate", "yard"}
    named = load_split(ClassificationData(root=classes, train={"camera": ["yard"]}, val={"camera": ["gate"]}), seed=0)
    assert [len(part) for part in (named.train, named.val)] == [10, 10]
    assert cameras_of(named.train.paths, classes) == {"yard"}
    rest = load_split(ClassificationData(root=classes, val={"camera": ["gate"]}), seed=0)
    assert rest.train.paths == named.train.paths
    part = read_part(ClassificationData(root=classes), "camera=gate,yard")
    assert len(part) == 20


def test_a_random_split_of_frames_must_be_asked_for_twice(classes: Path) -> None:
    for once in ({}, {"split_by": "random"}, {"random_frames": True}):
        with pytest.raises(InputError, match="20 of 20 images are frames of recordings.*give data.split_by=camera"):
            load_split(ClassificationData.model_validate({"root": classes, **once}), seed=0)
    twice = {"root": classes, "split_by": "random", "random_frames": True}
    split = load_split(ClassificationData.model_validate(twice), seed=0)
    (classes / "frames.jsonl").unlink()
    plain = load_split(ClassificationData(root=classes), seed=0)
    assert (split.train, split.val) == (plain.train, plain.val)


def test_frames_that_were_moved_are_found_by_their_names(classes: Path, tmp_path: Path) -> None:
    shutil.move(classes / "frames.jsonl", tmp_path / "list.jsonl")
    known = {"root": classes, "frames": tmp_path / "list.jsonl"}
    split = load_split(ClassificationData.model_validate({**known, "split_by": "camera"}), seed=0)
    assert len(split.val) == 10
    with pytest.raises(InputError, match="20 of 20 images are in no list of frames.*data.frames=PATH"):
        load_split(ClassificationData(root=classes, split_by="camera"), seed=0)
    with pytest.raises(InputError, match="are frames of recordings"):
        load_split(ClassificationData.model_validate(known), seed=0)


def test_two_ways_to_say_what_validates_are_refused(classes: Path) -> None:
    with pytest.raises(InputError, match="data.split_by and data.val both say what validates"):
        load_split(ClassificationData(root=classes, split_by="camera", val={"camera": ["gate"]}), seed=0)
    with pytest.raises(InputError, match="data.train and data.val both have"):
        load_split(ClassificationData(root=classes, train={"light": ["day"]}, val={"camera": ["gate"]}), seed=0)
    with pytest.raises(InputError, match="no image has camera 'gat' \\(did you mean 'gate'"):
        load_split(ClassificationData(root=classes, train={"camera": ["gat"]}, val={"camera": ["yard"]}), seed=0)


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    root = tmp_path / "boxes"
    for number in range(12):
        write_image(root / "images" / f"{number}.jpg", number)
    write_frame_list(root, [root / "images" / f"{number}.jpg" for number in range(12)])
    images = [{**entry(number), **({"camera": "mine"} if number == 0 else {})} for number in range(12)]
    things = [box(number + 1, image=number) for number in range(12)]
    document = {"images": images, "annotations": things, "categories": [{"id": 1, "name": "van"}]}
    (root / "annotations.json").write_text(json.dumps(document))
    return root / "annotations.json"


def test_annotated_frames_know_their_list_and_their_own_fields_count_more(boxes: Path) -> None:
    images, _ = read_annotated(DetectionData(annotations=boxes), boxes)
    assert [image.fields["camera"] for image in images.images] == ["mine", "yard", *["gate", "yard"] * 5]
    assert {image.fields["light"] for image in images.images} == {"day"}
    split = load_annotated_split(DetectionData(annotations=boxes, train={"camera": ["gate"]}, val={"camera": ["yard"]}))
    assert (len(split.train), len(split.val)) == (5, 6)
    split = load_annotated_split(DetectionData(annotations=boxes, split_by="camera"))
    assert {image.fields["camera"] for image in split.val.images} == {"yard"}
    assert len(choose_part(DetectionData(annotations=boxes), images, "camera=gate,mine")) == 6
    split = load_annotated_split(
        DetectionData(annotations=boxes, split_by="time", block_seconds=60, val_fraction=0.34, gap_seconds=0)
    )
    # The third minute of each camera, and the sixth of the one that has so many.
    assert [int(image.path.stem) for image in split.val.images] == [5, 6, 11]
    with pytest.raises(InputError, match="data.split_by and data.val both"):
        load_annotated_split(DetectionData(annotations=boxes, split_by="time", val={"camera": ["gate"]}))


def test_masks_of_frames_by_camera(tmp_path: Path, boxes: Path) -> None:
    images, masks = write_set(tmp_path / "masks", 8)
    (tmp_path / "classes.yaml").write_text("[road, car, wall]")
    write_frame_list(images, sorted(images.iterdir()))
    settings = {"images": images, "masks": masks, "classes": tmp_path / "classes.yaml"}
    split = load_segmented_split(SegmentationData.model_validate({**settings, "split_by": "camera"}))
    assert [image.fields["camera"] for image in split.val.images] == ["yard"] * 4
    assert [image.fields["camera"] for image in split.train.images] == ["gate"] * 4
    chosen = {"train": {"camera": ["yard"]}, "val": {"camera": ["gate"]}}
    other = load_segmented_split(SegmentationData.model_validate({**settings, **chosen}))
    assert (other.train, other.val) == (split.val, split.train)
    part, _ = read_segmented_part(SegmentationData.model_validate(settings), "camera=yard", ["road", "car", "wall"])
    assert part == split.val
    with pytest.raises(InputError, match="no image has a field 'site'"):
        load_segmented_split(SegmentationData.model_validate({**settings, "train": {"site": ["a"]}}))
