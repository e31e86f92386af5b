"""Which images a config takes to train and to validate on."""

from pathlib import Path
from zlib import crc32

import pytest

from helpers.annotation_sets import write_image
from visionlora.data.checks.check_data import check
from visionlora.data.classification.split import Split, load_split, read_part
from visionlora.errors import InputError
from visionlora.sections import ClassificationData


def write_classes(folder: Path, **counts: int) -> Path:
    for name, count in counts.items():
        for number in range(count):
            write_image(folder / name / f"{number}.jpg", crc32(f"{folder.name}/{name}/{number}".encode()))
    return folder


def load(**settings: object) -> Split:
    return load_split(ClassificationData.model_validate(settings), seed=0)


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN"])
@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val", "Validation"])
def test_parts_are_found_by_any_of_their_names(tmp_path: Path, train: str, val: str) -> None:
    write_classes(tmp_path / train, car=3, van=3)
    write_classes(tmp_path / val, car=1, van=1)
    write_classes(tmp_path / "test", car=2, van=2)
    split = load(root=tmp_path)
    assert (len(split.train), len(split.val), split.advice) == (6, 2, "")
    assert {part.name for part in check(tmp_path).parts} == {train, val, "test"}
    assert check(tmp_path).faults == []


def test_its_own_name_goes_before_another_word_for_it(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "validation", "val", "valid"), start=1):
        write_classes(tmp_path / part, car=number, van=number)
    assert len(load(root=tmp_path).val) == 6
    assert len(load(root=tmp_path, val="valid").val) == 8


def test_without_a_part_to_validate_on_it_is_said_what_does(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", car=10, van=10)
    write_classes(tmp_path / "test", car=1, van=1)
    split = load(root=tmp_path)
    assert (len(split.train), len(split.val)) == (16, 4)
    assert "a random 20% of train (data.val_fraction) validates; data.val=test takes test instead" in split.advice
    (remark,) = check(tmp_path).faults
    assert (remark.kind, split.advice in remark.message) == ("no-validation", True)
    named = load(root=tmp_path, val="test")
    assert (len(named.val), named.advice) == (2, "")


def test_shots_are_so_many_of_each_class_and_fewer_are_among_more(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", car=9, van=7)
    write_classes(tmp_path / "val", car=2, van=2)
    data = ClassificationData(root=tmp_path)
    drawn = {
        shots: load_split(data.model_copy(update={"shots": shots}), seed=seed)
        for shots, seed in ((2, 0), (5, 0), (7, 0), (3, 1))
    }
    assert [split.train.counts() for split in drawn.values()] == [[shots, shots] for shots in drawn]
    assert all(len(split.val) == 4 for split in drawn.values())
    assert set(drawn[2].train.paths) < set(drawn[5].train.paths) < set(drawn[7].train.paths)
    again = load_split(data.model_copy(update={"shots": 3}), seed=0)
    assert set(again.train.paths) != set(drawn[3].train.paths)
    with pytest.raises(InputError, match="data.shots is 8, and class 'van' has 7 images to train on; give fewer"):
        load(root=tmp_path, shots=8)


@pytest.mark.parametrize("parts", [("train", "val"), ("train",)])
def test_what_is_held_out_is_of_the_training_images_alone(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        write_classes(tmp_path / part, car=10, van=10)
    plain, held = load(root=tmp_path), load(root=tmp_path, hold_out=True, val_fraction=0.2, shots=5)
    assert held.train.counts() == [5, 5]
    assert not set(held.train.paths) & set(held.val.paths)
    assert set(held.val.paths) < set(plain.train.paths)
    assert not set(held.val.paths) & set(plain.val.paths)


def test_splits_of_a_table_are_found_by_any_of_their_names(tmp_path: Path) -> None:
    write_classes(tmp_path, car=3, van=3)
    rows = [f"{name}/{n}.jpg;{name};{'Training' if n else 'valid'}" for name in ("car", "van") for n in range(3)]
    (tmp_path / "l.csv").write_text("\n".join(["filename;class;set", *rows]))
    split = load(csv=tmp_path / "l.csv")
    assert (len(split.train), len(split.val)) == (4, 2)
    report = check(tmp_path / "l.csv")
    assert [(part.name, part.images) for part in report.parts] == [("Training", 4), ("valid", 2)]
    assert (report.layout, [fault.kind for fault in report.faults]) == ("table", ["assumed"])


def test_a_table_beside_the_images_of_each_part_is_read(tmp_path: Path) -> None:
    """As Roboflow exports several labels."""
    for part in ("train", "valid"):
        rows = [
            f"{write_image(tmp_path / part / f'{n}.jpg', n + 9 * (part == 'train')).name},{n % 2},1" for n in (0, 1)
        ]
        (tmp_path / part / "_classes.csv").write_text("\n".join(["filename, car, van", *rows]))
    split = load(root=tmp_path, multilabel=True)
    assert (split.train.classes, split.train.labels, len(split.val)) == (["car", "van"], [(1,), (0, 1)], 2)
    report = check(tmp_path)
    assert (report.layout, [part.name for part in report.parts]) == ("table", ["train", "valid"])
    assert not report.errors
    with pytest.raises(InputError, match=r"has 2 classes with a 1 .*; several labels per image need data.multilabel"):
        load(root=tmp_path)


def spoil(root: Path) -> None:
    (root / "train" / "car" / "1.jpg").write_bytes(b"no image")
    (root / "train" / "van" / "x.heic").touch()
    (root / "train" / "bus").mkdir()
    write_classes(root / "val", bike=2)


def test_single_faults_are_passed_over_if_asked_and_told(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", car=3, van=3)
    write_classes(tmp_path / "val", car=1, van=1)
    spoil(tmp_path)
    with pytest.raises(InputError, match="2 faults") as caught:
        load(root=tmp_path)
    assert "data.faulty=leave_out" in str(caught.value)
    split = load(root=tmp_path, faulty="leave_out")
    assert (split.train.classes, split.train.counts(), split.val.counts()) == (["car", "van"], [2, 3], [1, 1])
    assert len(split.faulty) == 4 == len(check(tmp_path).errors)
    assert [line.rpartition(" -> ")[2] for line in split.faulty] == ["left out"] * 2 + [
        "its images left out",
        "image left out",
    ]
    part = read_part(ClassificationData(root=tmp_path, faulty="leave_out"), "val", ["car", "van"])
    assert part.counts() == [1, 1]


def test_single_rows_are_passed_over_if_asked_and_told(tmp_path: Path) -> None:
    write_classes(tmp_path, car=3, van=3)
    good = [f"{name}/{n}.jpg,{name}" for name in ("car", "van") for n in range(3)]
    (tmp_path / "l.csv").write_text("\n".join(["path,label", *good, "car/9.jpg,car", "car/0.jpg,van", ",van"]))
    with pytest.raises(InputError, match="3 faults"):
        load(csv=tmp_path / "l.csv")
    split = load(csv=tmp_path / "l.csv", faulty="leave_out")
    assert (len(split.train) + len(split.val), len(split.faulty)) == (6, 3)


def test_one_class_that_is_left_is_too_few(tmp_path: Path) -> None:
    write_classes(tmp_path, car=3)
    (tmp_path / "van").mkdir()
    with pytest.raises(InputError, match=r"only one class is left \(car\)"):
        load(root=tmp_path, faulty="leave_out")
