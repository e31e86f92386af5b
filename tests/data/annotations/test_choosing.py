"""Parts by field, class and order."""

from pathlib import Path
from typing import Any

import pytest

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject
from visionlora.data.annotations.choosing import every_nth, select, split_in_order, values_of, without_classes
from visionlora.errors import InputError


def image(number: int, *labels: int, **fields: Any) -> AnnotatedImage:
    things = tuple(LabelledObject(label, (0, 0, 5, 5)) for label in labels)
    return AnnotatedImage(Path(f"{number}.jpg"), 10, 10, things, fields)


def names(data: AnnotatedImages) -> str:
    return "".join(image.path.stem for image in data.images)


CLASSES = ["bus", "car", "van"]
DATA = AnnotatedImages(
    [
        image(1, 0, day="monday", camera=7),
        image(2, 1, 2, day="monday", camera=8),
        image(3, day="tuesday", camera=7),
        image(4, 1, 0, day="wednesday", camera=8),
        image(5, 2, day="tuesday"),
    ],
    CLASSES,
)


def test_images_are_chosen_by_their_fields() -> None:
    assert names(select(DATA, {"day": ["monday", "wednesday"]})) == "124"
    assert names(select(DATA, {"day": ["monday", "tuesday"], "camera": ["7"]})) == "13"
    assert names(select(DATA, {"camera": [8]})) == "24"
    assert select(DATA, {"camera": [8]}).classes == CLASSES
    assert names(select(DATA, {})) == "12345"
    assert values_of(DATA, "camera") == ["7", "8"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"dya": ["monday"]}, "no image has a field 'dya' (did you mean 'day'?); there are day, camera"),
        (
            {"day": ["monday", "sunday"]},
            "no image has day 'sunday' (did you mean 'monday'?); there are monday, tuesday",
        ),
        ({"day": ["wednesday"], "camera": [7]}, "no image has day of wednesday and camera of 7"),
        ({"day": []}, "no image has day of "),
    ],
)
def test_a_choice_of_nothing_is_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        select(DATA, wanted)
    assert message in str(caught.value)


def test_left_out_classes_become_background() -> None:
    data = without_classes(DATA, ["bus"])
    assert data.classes == ["car", "van"]
    assert names(data) == "12345"
    assert [[thing.label for thing in image.objects] for image in data.images] == [[], [0, 1], [], [0], [1]]
    assert data.counts() == DATA.counts()[1:]
    assert without_classes(DATA, []) == DATA


def test_images_that_show_a_left_out_class_go_when_asked() -> None:
    assert names(without_classes(DATA, ["bus"], drop_images=True)) == "235"


def test_classes_that_cannot_be_left_out() -> None:
    with pytest.raises(InputError, match=r"no class 'vam' to leave out \(did you mean 'van'\?\)"):
        without_classes(DATA, ["vam"])
    with pytest.raises(InputError, match="all classes .* are left out"):
        without_classes(DATA, CLASSES)
    with pytest.raises(InputError, match="every one shows some"):
        without_classes(DATA.subset([0]), ["bus"], drop_images=True)


def test_every_nth_image() -> None:
    assert [names(every_nth(DATA, every)) for every in (1, 2, 3, 9)] == ["12345", "135", "14", "1"]
    with pytest.raises(InputError, match="give 1 or more"):
        every_nth(DATA, 0)


def test_a_split_in_order() -> None:
    assert [names(part) for part in split_in_order(DATA, 0.6)] == ["123", "45"]
    assert [names(part) for part in split_in_order(DATA, 0.4, gap=2)] == ["12", "5"]
    assert [names(part) for part in split_in_order(DATA, 0.5, by="day")] == ["12", "354"]  # stable
    backwards = AnnotatedImages([image(n, frame=10 - n) for n in (1, 2, 3)], CLASSES)
    assert [names(part) for part in split_in_order(backwards, 0.5, by="frame")] == ["32", "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 1.0}, "give a number between 0 and 1"),
        ({"fraction": 0.5, "gap": -1}, "give 0 or more"),
        ({"fraction": 0.5, "gap": 3}, "5 images can't be split at 0.5 with a gap of 3: a part would be empty"),
        ({"fraction": 0.05}, "a part would be empty"),
        ({"fraction": 0.5, "by": "hour"}, "no image has a field 'hour'"),
        ({"fraction": 0.5, "by": "camera"}, "can't be put in order by 'camera'"),  # one image has none
    ],
)
def test_a_split_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        split_in_order(DATA, **arguments)
    assert message in str(caught.value)
