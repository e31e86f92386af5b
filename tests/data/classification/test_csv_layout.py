"""path,label[,split]"""

from pathlib import Path

import pytest

from visionlora.data.classification.csv_labels import examine_rows, read_csv
from visionlora.data.classification.labelled import LabelledImages
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
        (["where,label", "img/1.jpg,a"], "line 1: no column 'path'; the columns are where, label"),
        (["path label", "img/1 a"], "line 1: no column 'path' (did you mean 'path label'?)"),
        (["path,lable", "img/1.jpg,a"], "line 1: no column 'label' (did you mean 'lable'?)"),
        (["img/1.jpg,a,b", "img/2.jpg,b,a"], "line 1: no header; name the 3 columns there"),
        (["path,a,b", "img/1.jpg,0,0.5"], "line 1: no column 'label'"),
        (["path,a,b", "img/1.jpg,1,0", "img/2.jpg,1,1"], "line 3: has 2 classes with a 1 (a, b); several labels"),
        (["path,a,b", "img/1.jpg,1,0", "img/2.jpg,0,0"], "line 3: has no class with a 1; several labels"),
        (["path,label,label", "img/1.jpg,a,b"], "line 1: there are 2 columns 'label'"),
        (["path,label"], "no rows below the header"),
        (["path,label", "img/1.jpg,a", "img/2.jpg,"], "line 3: the label is empty"),
        (["path,label", "img/1.jpg,a", ",b"], "line 3: the path is empty"),
        (["path,label", "img/1.jpg,a", "img/2.jpg"], "line 3: not as many cells as the header"),
        (["path,label", "img/1.jpg,a", "img/2.jpg,a,b"], "line 3: not as many cells as the header"),
        (["path,label", "img/1.jpg,a|b"], "line 2: label 'a|b' holds '|'; several labels per image need"),
        (["path,label", "../x.jpg,a"], "line 2: '../x.jpg' leaves the data folder"),
        (["path,label", "img/../../x.jpg,a"], "line 2: 'img/../../x.jpg' leaves the data folder"),
        (["path,label", "../1.jpg,a"], "line 2: '../1.jpg' is not there; the only file of that name is at img/1.jpg"),
        (["path,label", "/img/x.jpg,a"], "line 2: '/img/x.jpg' leaves the data folder"),
        (["path,label", "C:\\img\\x.jpg,a"], "leaves the data folder"),
        (["path,label", "img/1.jpg,a", "img/2.jpg,b", "img/1.jpg,b"], "line 4: '1.jpg' is listed before, on line 2"),
        (["path,label", "img/1.jpg,a", "img/8.jpg,b", "img/9.jpg,b"], "2 faults (2 x file is missing)"),
        (["path,label", 'img/1.jpg,"a'], "not well-formed CSV"),
    ],
)
def test_a_wrong_table_is_refused_with_the_line(tmp_path: Path, lines: list[str], expected: str) -> None:
    assert expected in message(table(tmp_path, *lines))


def test_missing_images_are_named_with_their_lines(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "img/1.jpg,a", *(f"img/x{i}.jpg,b" for i in range(7)))
    assert "7 faults (7 x file is missing)" in message(path)
    assert "line 3: 'img/x0.jpg' is not in" in message(path)
    assert "and 4 more" in message(path)


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


READABLE = {
    "semicolons": "path;label;split\nimg/1.jpg;car;train\nimg/2.jpg;van;train",
    "tabs": "path\tlabel\nimg/1.jpg\tcar\nimg/2.jpg\tvan",
    "no header": "img/1.jpg,car\nimg/2.jpg,van",
    "no header, label first": "car,img/1.jpg\nvan,img/2.jpg",
    "no header, split": "img/1.jpg,car,train\nimg/2.jpg,van,valid",
    "no header, index": "0,img/1.jpg,car\n1,img/2.jpg,van",
    "pandas' index": ",path,label\n0,img/1.jpg,car\n1,img/2.jpg,van",
    "other names": "Image Path,Class Name\nimg/1.jpg,car\nimg/2.jpg,van",
    "filename and class": "filename,width,height,class\nimg/1.jpg,8,8,car\nimg/2.jpg,8,8,van",
    "one-hot": "filename, van, car\nimg/1.jpg,0,1\nimg/2.jpg,1,0",
    "one-hot with index": "Unnamed: 0,image,van,car,split\n0,img/1.jpg,0.0,1.0,train\n1,img/2.jpg,1.0,0.0,train",
    "blank lines and CRLF": "path,label\r\n\r\nimg/1.jpg,car\r\nimg/2.jpg,van\r\n\r\n",
    "Windows separators": "path,label\nimg\\1.jpg,car\nimg\\2.jpg,van",
    "a leading dot": "path,label\n./img/1.jpg,car\nimg/2.jpg,van",
    "absolute, as it lies here": "path,label\n{root}/img/1.jpg,car\n{root}/img/2.jpg,van",
    "absolute, of another machine": "path,label\n/home/me/data/img/1.jpg,car\n/home/me/data/img/2.jpg,van",
    "absolute, of Windows": "path,label\nD:\\data\\img\\1.jpg,car\nD:\\data\\img\\2.jpg,van",
    "quotes": 'path,label\n"img/1.jpg","car"\n"img/2.jpg","van"',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", READABLE)
def test_what_others_write_is_read(tmp_path: Path, name: str, encoding: str) -> None:
    path = table(tmp_path, "")
    path.write_bytes(READABLE[name].replace("{root}", str(tmp_path)).encode(encoding))
    data = read_csv(path)
    assert (names(data), data.classes, data.labels) == (["1", "2"], ["car", "van"], [(0,), (1,)])
    assert all(file.is_file() for file in data.paths)


@pytest.mark.parametrize("name", ["no header", "other names", "one-hot", "absolute, of another machine"])
def test_what_is_taken_for_granted_is_said(tmp_path: Path, name: str) -> None:
    path = table(tmp_path, "")
    path.write_text(READABLE[name])
    faults = examine_rows(path).faults
    assert {fault.kind for fault in faults} <= {"assumed", "other-path"}
    assert faults
    assert not any(fault.is_error for fault in faults)


def test_one_hot_columns_with_several_or_none_are_several_labels(tmp_path: Path) -> None:
    path = table(tmp_path, "filename, van, car", "img/1.jpg,1,1", "img/2.jpg,0,0", "img/3.jpg,0,1")
    assert examine_rows(path).multilabel
    data = read_csv(path, multilabel=True)
    assert (data.classes, data.labels) == (["car", "van"], [(0, 1), (), (0,)])
    assert not examine_rows(table(tmp_path, "filename,van,car", "img/1.jpg,1,0", "img/2.jpg,0,1")).multilabel


def test_every_fault_of_a_table_is_collected(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "img/1.jpg,a", "img/2.jpg,", "img/9.jpg,a", "img/1.jpg,b", "img/3.jpg,b", ",a")
    found = examine_rows(path)
    assert [fault.kind for fault in found.faults] == ["malformed", "missing-file", "duplicate-file", "malformed"]
    assert [fault.where for fault in found.faults] == ["line 3", "line 4", "line 5", "line 7"]
    assert [row.path.stem for row in found.rows] == ["1", "3"]
