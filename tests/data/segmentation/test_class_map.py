"""Class files: what is read, and every way in which they can be wrong."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from visionlora.data.segmentation.class_map import IGNORE, UNKNOWN, ClassEntry, make_class_map, read_class_map
from visionlora.errors import InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "classes.yaml"
    path.write_text(text)
    return path


def looked_up(class_map: object, values: list[int]) -> list[int]:
    return class_map.classes_of(np.array([values], np.uint16))[0].tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["[road, car]", "classes: [road, car]", "classes:\n- name: road\n- {name: car}\n"])
def test_a_list_of_names_counts_from_0_and_255_is_ignored(tmp_path: Path, text: str) -> None:
    class_map = read_class_map(write(tmp_path, text))
    assert (class_map.names, class_map.colors) == (("road", "car"), None)
    assert looked_up(class_map, [0, 1, 2, 255, 65535]) == [0, 1, UNKNOWN, IGNORE, UNKNOWN]


@pytest.mark.parametrize("ignore", ["void", "0", "[void]", "[0, 0]"])
def test_an_ignored_entry_is_no_class_and_the_others_move_up(tmp_path: Path, ignore: str) -> None:
    class_map = read_class_map(write(tmp_path, f"classes: [void, road, car]\nignore: {ignore}"))
    assert class_map.names == ("road", "car")
    assert looked_up(class_map, [0, 1, 2, 3, 255]) == [IGNORE, 0, 1, UNKNOWN, UNKNOWN]


def test_classes_may_have_values_of_their_own(tmp_path: Path) -> None:
    text = "classes: [{name: road, value: 7}, {name: car, value: 300}]\nignore: [0, 255]"
    class_map = read_class_map(write(tmp_path, text))
    assert looked_up(class_map, [0, 1, 7, 255, 300]) == [IGNORE, UNKNOWN, 0, IGNORE, 1]


def test_255_is_a_class_where_one_has_that_value() -> None:
    class_map = make_class_map([ClassEntry("ground", 0), ClassEntry("person", 255)])
    assert looked_up(class_map, [0, 255]) == [0, 1]


def test_colours_stand_for_classes_and_for_what_is_ignored(tmp_path: Path) -> None:
    text = (
        "classes:\n- {name: road, color: [1, 2, 3]}\n- {name: car, color: [3, 2, 1]}\n"
        "- {name: void, color: [0, 0, 0]}\nignore: 2\n"
    )
    class_map = read_class_map(write(tmp_path, text))
    assert class_map.colors == ((1, 2, 3), (3, 2, 1))
    picture = np.array([[[1, 2, 3], [3, 2, 1], [0, 0, 0], [1, 2, 4]]], np.uint8)
    assert class_map.classes_of(picture).tolist() == [[0, 1, IGNORE, UNKNOWN]]


def test_a_class_may_be_called_like_a_number_or_a_boolean(tmp_path: Path) -> None:
    assert read_class_map(write(tmp_path, "classes: [no, 1, 0x1]\nignore: 1")).names == ("no", "0x1")


def test_a_class_map_can_be_pickled() -> None:
    class_map = make_class_map(["a", "b"])
    class_map.classes_of(np.zeros((1, 1), np.uint8))
    assert pickle.loads(pickle.dumps(class_map)) == class_map


def test_254_classes_fit_and_255_do_not() -> None:
    names = [f"class {i}" for i in range(255)]
    assert looked_up(make_class_map(names[:254]), [253, 254]) == [253, UNKNOWN]
    with pytest.raises(InputError, match="255 classes .*; give 2 to 254"):
        make_class_map(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("road", "holds 'road'; name the classes"),
        ("names: [a, b]", "holds .*; name the classes"),
        (
            "classes: [a, b]\nignored: 1",
            r"unknown key 'ignored' \(did you mean 'ignore'\?\); there are classes, values, ignore",
        ),
        ("[{name: a, colour: [1, 2, 3]}, b]", r"unknown key 'colour' \(did you mean 'color'\?\)"),
        ("[a]", r"1 classes \(a\); give 2 to 254"),
        ("[a, b, a]", "two classes have the name 'a'"),
        ("[a, {name: b, value: 0}]", "two classes have the value 0"),
        ("[{name: a, color: [1, 1, 1]}, {name: b, color: [1, 1, 1]}]", r"two classes have the color \(1, 1, 1\)"),
        ("[{name: a, color: [1, 1, 1]}, b]", "no color for b, while others have one"),
        ("[{name: a, color: [1, 1]}, b]", r"class 'a' has the color \['1', '1'\]; give \[red, green, blue\]"),
        ("[{name: a, color: [1, 1, 256]}, b]", "class 'a' has the color"),
        ("[{name: a, color: red}, b]", "class 'a' has the color 'red'"),
        ("[{name: a, value: -1}, b]", "class 'a' has the value '-1'; give a number from 0 to 65535"),
        ("[{name: a, value: 65536}, b]", "class 'a' has the value '65536'"),
        ("[{color: [1, 2, 3]}, b]", "a class is named None"),
        ("['', b]", "a class is named ''"),
        ("[[a], b]", "a class is named"),
        ("classes: [a, b]\nignore: c", "'ignore' is 'c'.*; give a class's name, or a value"),
        ("classes: [a, b]\nignore: [a, b]", r"0 classes \(\); give 2"),
        ("classes: [a, b", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_class_map(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no text in UTF-8"):
        read_class_map(tmp_path / "classes.yaml")
    with pytest.raises(InputError, match=r"no such file \(did you mean 'classes.yaml'\?\)"):
        read_class_map(tmp_path / "class.yaml")
