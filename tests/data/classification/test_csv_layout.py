"""path,label[,split]"""

from pathlib import Path

import pytest

from visionlora.data.classification.dataset import LabelledImages, read_csv
from visionlora.errors import InputError


def table(folder: Path, *lines: str, images: str = "1 2 3 4", encoding: str = "utf-8") -> Path:
    """A CSV beside the (empty) images img/1.jpg, img/2.jpg ..."""
    (folder / "img").mkdir(exist_ok=True)
    for name in images.split():
        (folder / "img" / f"{name}.jpg").touch()
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def message(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read_csv(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(data: LabelledImages) -> list[str]:
    return [path.stem for path in data.paths]


def test_rows_in_order_and_classes_by_name(tmp_path: Path) -> None:
    data = read_csv(table(tmp_path, "path,label", "img/2.jpg,van", "img/1.jpg, car", "img/3.jpg,van"))
    assert data.paths[0] == tmp_path / "img/2.jpg"
    assert names(data) == ["2", "1", "3"]
    assert data.classes == ["car", "van"]
    assert data.labels == [(1,), (0,), (1,)]


def test_a_byte_order_mark_and_other_columns_do_no_harm(tmp_path: Path) -> None:
    path = table(tmp_path, "camera,label,path", "7,a,img/1.jpg", '"8, north",b,img/2.jpg', encoding="utf-8-sig")
    assert read_csv(path).classes == ["a", "b"]


def test_paths_are_relative_to_the_root(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "1.jpg,a", "2.jpg,b")
    assert read_csv(path, root=tmp_path / "img").paths[1] == tmp_path / "img/2.jpg"
    assert "no such folder (did you mean 'img'?)" in message(path, root=tmp_path / "imgs")


def test_splits_are_taken_apart(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,split", "img/1.jpg,a,train", "img/2.jpg,b,train", "img/3.jpg,b,val")
    train = read_csv(path, split="train")
    assert names(train) == ["1", "2"]
    val = read_csv(path, split="val", classes=train.classes)
    assert (names(val), val.labels) == (["3"], [(1,)])
    assert names(read_csv(path)) == ["1", "2", "3"]
    assert "no row with split 'vall' (did you mean 'val'?); the splits are train, val" in message(path, split="vall")


def test_several_labels_or_none(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "img/1.jpg,person|car", "img/2.jpg,", "img/3.jpg,car")
    data = read_csv(path, multilabel=True)
    assert data.multilabel
    assert data.classes == ["car", "person"]
    assert data.labels == [(0, 1), (), (0,)]
    assert data.counts() == [2, 1]


def test_one_class_is_enough_only_with_several_labels(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "img/1.jpg,car", "img/2.jpg,car")
    assert read_csv(path, multilabel=True).classes == ["car"]
    assert "only one class (car)" in message(path)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["file,label", "img/1.jpg,a"], "line 1: no column 'path'; the columns are file, label"),
        (["path;label", "img/1.jpg;a"], "line 1: no column 'path'"),
        (["path,labels", "img/1.jpg,a"], "line 1: no column 'label' (did you mean 'labels'?)"),
        (["path,label,label", "img/1.jpg,a,b"], "line 1: there are 2 columns 'label'"),
        (["path,label"], "no rows below the header"),
        (["path,label", "img/1.jpg,a", "img/2.jpg,"], "line 3: the label is empty"),
        (["path,label", "img/1.jpg,a", ",b"], "line 3: the path is empty"),
        (["path,label", "img/1.jpg,a", "img/2.jpg"], "line 3: not as many cells as the header"),
        (["path,label", "img/1.jpg,a", "img/2.jpg,a,b"], "line 3: not as many cells as the header"),
        (["path,label", "img/1.jpg,a|b"], "line 2: label 'a|b' holds '|'; several labels per image need"),
        (["path,label", "../1.jpg,a"], "line 2: '../1.jpg' leaves the data folder"),
        (["path,label", "img/../../1.jpg,a"], "line 2: 'img/../../1.jpg' leaves the data folder"),
        (["path,label", "/img/1.jpg,a"], "line 2: '/img/1.jpg' leaves the data folder"),
        (["path,label", "C:\\img\\1.jpg,a"], "leaves the data folder"),
        (["path,label", "img/1.jpg,a", "img/2.jpg,b", "img/1.jpg,b"], "line 4: '1.jpg' is listed before, on line 2"),
        (["path,label", "img/1.jpg,a", "img/8.jpg,b", "img/9.jpg,b"], "2 of 3 images are missing"),
        (["path,label", 'img/1.jpg,"a'], "not well-formed CSV"),
    ],
)
def test_a_wrong_table_is_refused_with_the_line(tmp_path: Path, lines: list[str], expected: str) -> None:
    assert expected in message(table(tmp_path, *lines))


def test_missing_images_are_named_with_their_lines(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "img/1.jpg,a", *(f"img/x{i}.jpg,b" for i in range(7)))
    assert "7 of 8 images are missing" in message(path)
    assert "x0.jpg (line 3)" in message(path)
    assert "and 2 more" in message(path)


@pytest.mark.parametrize("cell", ["a||b", "|a", "a|a"])
def test_a_malformed_list_of_labels_is_refused(tmp_path: Path, cell: str) -> None:
    assert "line 2" in message(table(tmp_path, "path,label", f"img/1.jpg,{cell}"), multilabel=True)


def test_labels_everywhere_empty_are_refused(tmp_path: Path) -> None:
    assert "no row has a label" in message(table(tmp_path, "path,label", "img/1.jpg,"), multilabel=True)


def test_a_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "img/1.jpg,car", "img/2.jpg,vam")
    assert "line 3: class 'vam' is not among the training classes car, van (did you mean 'van'?)" in message(
        path, classes=["car", "van"]
    )


def test_a_split_needs_its_column(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "img/1.jpg,a")
    assert "no column 'split'" in message(path, split="train")


def test_a_missing_or_undecodable_file_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "img/1.jpg,grün", encoding="latin-1")
    assert "is not UTF-8 text" in message(path)
    assert "no such file (did you mean 'labels.csv'?)" in message(tmp_path / "label.csv")
