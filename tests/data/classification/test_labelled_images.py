"""Subsets and the split into training and validation."""

from pathlib import Path

import pytest

from visionlora.data.classification.labelled import LabelledImages, split_train_val
from visionlora.errors import InputError


def labelled(*counts: int) -> LabelledImages:
    labels: list[tuple[int, ...]] = [(index,) for index, count in enumerate(counts) for _ in range(count)]
    paths = [Path(f"{i}.jpg") for i in range(len(labels))]
    return LabelledImages(paths, labels, [f"class{i}" for i in range(len(counts))])


def test_subsets_keep_the_classes_and_the_order_asked_for() -> None:
    data = labelled(2, 3)
    assert data.subset([4, 0]).paths == [Path("4.jpg"), Path("0.jpg")]
    assert data.subset([4]).classes == data.classes
    rest = data.without({Path("0.jpg"), Path("1.jpg")})
    assert rest.counts() == [0, 3]
    assert rest.paths == data.paths[2:]


@pytest.mark.parametrize("counts", [(100, 10), (3, 50), (1, 2, 40)])
def test_a_split_is_a_partition_class_by_class(counts: tuple[int, ...]) -> None:
    data = labelled(*counts)
    train, val = split_train_val(data, 0.2, seed=1)
    assert sorted([*train.paths, *val.paths]) == sorted(data.paths)
    assert val.counts() == [min(n - 1, max(1, round(0.2 * n))) for n in counts]
    assert min(train.counts()) >= 1
    label_of = dict(zip(data.paths, data.labels, strict=True))
    assert all(label_of[path] == label for path, label in zip(val.paths, val.labels, strict=True))


def test_a_split_follows_from_the_seed() -> None:
    data = labelled(50, 50)
    assert split_train_val(data, 0.3, seed=1) == split_train_val(data, 0.3, seed=1)
    assert split_train_val(data, 0.3, seed=1) != split_train_val(data, 0.3, seed=2)


def test_multilabel_images_are_drawn_from_all_together() -> None:
    labels: list[tuple[int, ...]] = [(0, 1), (), (1,), (0,)] * 10
    data = LabelledImages([Path(f"{i}.jpg") for i in range(40)], labels, ["a", "b"], multilabel=True)
    train, val = split_train_val(data, 0.25, seed=0)
    assert (len(train), len(val)) == (30, 10)
    assert val.multilabel


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 20])
def test_a_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        split_train_val(labelled(5, 5), fraction, seed=0)


def test_single_images_cannot_be_split() -> None:
    with pytest.raises(InputError, match="no class has two"):
        split_train_val(labelled(1, 1, 1), 0.5, seed=0)
