"""A table of images and labels as text: how it is separated, what its columns are called, and its rows."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from visionlora.data.faults import Fault, Spot, shown
from visionlora.data.folders import PARTS, is_hidden, subfolders, what_there_is
from visionlora.data.images import is_image
from visionlora.errors import InputError, did_you_mean, some

_NAMES = {
    "path": (
        *("path", "imagepath", "imgpath", "filepath", "filename", "filenames", "imagename", "imagefile", "imgname"),
        *("file", "image", "img", "images"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "classname", "labelname", "category", "categories", "target", "tag"),
        "tags",
    ),
    "split": ("split", "splits", "subset", "part", "partition", "set", "dataset"),
}
"""Column -> what others call it, in lower case and without signs between words; the first goes before the others."""

SUFFIXES = (".csv", ".tsv")
"""Endings of tables, in lower case."""

ROBOFLOW = "_classes.csv"
"""Beside the images; of masks it names their values instead."""

_NO_CLASS = ("", "index", "id", "unnamed")
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")
_TRIED = 50
"""Rows that show what a column without a name holds."""


@dataclass(frozen=True)
class Table:
    """The cells of a file.

    Attributes:
        rows: line in the file and cells, stripped.
        columns: ``path``, ``label`` and ``split`` -> place of the column, where there is one.
        one_hot: class -> place of its column of 0 and 1, instead of ``label``.
        width: how many cells a row has.
    """

    rows: list[tuple[int, list[str]]]
    columns: dict[str, int]
    width: int
    one_hot: dict[str, int] = field(default_factory=dict)

    def labels(self, cells: Sequence[str]) -> str | list[str]:
        """The label as it is written, or the classes whose column says 1."""
        if not self.one_hot:
            return cells[self.columns["label"]]
        return [name for name, place in self.one_hot.items() if cells[place].lower() in _YES]


def find_table(folder: Path) -> Path | None:
    """The table that lies beside the images of a folder: Roboflow's ``_classes.csv``, or the only one there is."""
    if (folder / ROBOFLOW).is_file():
        return folder / ROBOFLOW
    tables = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not is_hidden(path.name)]
    alone = len(tables) == 1 and not subfolders(folder) and any(is_image(path) for path in folder.iterdir())
    return tables[0] if alone else None


def read_table(path: Path, faults: list[Fault]) -> Table:
    """Read a file separated by commas, semicolons or tabs, with a header or without; what is assumed is noted.

    Raises:
        InputError: no such file, no text, or no column that holds images or labels.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file{what_there_is(path)}")
    text = _decode(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count) if any(sign in first for sign in ",;\t") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not well-formed CSV ({error})") from error
    if not rows:
        raise InputError(f"{path}: is empty; give a header, path,label, and a row for each image")
    spot = Spot(path, "line 1", faults)
    if any(is_image(Path(cell)) for cell in rows[0][1]):
        return _without_header(rows, path, spot)
    return _with_header(rows, path, spot)


def _decode(path: Path) -> str:
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # Excel's "Unicode text"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def _with_header(rows: list[tuple[int, list[str]]], path: Path, spot: Spot) -> Table:
    header, body = rows[0][1], rows[1:]
    columns = {}
    for column, names in _NAMES.items():
        if header.count(column) > 1:
            raise InputError(f"{path}, line 1: there are {header.count(column)} columns '{column}'")
        plain = [re.sub("[^a-z0-9]", "", name.lower()) for name in header]
        found = header.index(column) if column in header else None
        if found is None:
            found = next((plain.index(name) for name in names if name in plain), None)
        if found is not None:
            columns[column] = found
    one_hot: dict[str, int] = {}
    if "path" in columns and "label" not in columns:
        one_hot = _one_hot(header, body, columns)
    for needed in ("path", "label"):
        if needed not in columns and not (needed == "label" and one_hot):
            raise InputError(
                f"{path}, line 1: no column '{needed}'{did_you_mean(needed, header)}; the columns are "
                f"{some(header, 10)} (needed: path,label and, to choose a split, split)"
            )
    if not body:
        raise InputError(f"{path}: no rows below the header")
    read_as = [f"{shown(header[place])} as {column}" for column, place in columns.items() if header[place] != column]
    if one_hot:
        read_as.append(f"{some(one_hot)} as classes, each a column of 0 and 1")
    if read_as:
        spot.note("assumed", f"columns are read as it is meant: {', '.join(read_as)}")
    return Table(body, columns, len(header), one_hot)


def _one_hot(header: list[str], rows: list[tuple[int, list[str]]], columns: dict[str, int]) -> dict[str, int]:
    """The columns of classes, if all that are left hold 0 and 1 alone."""
    places = [
        place
        for place, name in enumerate(header)
        if place not in columns.values() and name.lower().split(":")[0] not in _NO_CLASS
    ]
    cells = {cell.lower() for _, row in rows for place in places if place < len(row) for cell in [row[place]]}
    if len(places) < 2 or not cells <= {*_YES, *_NO} or len({header[place] for place in places}) < len(places):
        return {}
    return {header[place]: place for place in places}


def _without_header(rows: list[tuple[int, list[str]]], path: Path, spot: Spot) -> Table:
    width = len(rows[0][1])
    tried = [cells for _, cells in rows[:_TRIED] if len(cells) == width]
    images = [sum(is_image(Path(cells[place])) for cells in tried) for place in range(width)]
    columns = {"path": images.index(max(images))}
    left = [place for place in range(width) if place not in columns.values()]
    left = [place for place in left if not _counts([cells[place] for cells in tried]) or len(left) == 1]
    parts = [place for place in left if all(cells[place].lower() in PARTS for cells in tried)]
    if len(left) == 2 and len(parts) == 1:
        columns["split"] = parts[0]
        left.remove(parts[0])
    if len(left) != 1:
        raise InputError(f"{path}, line 1: no header; name the {width} columns there, as in path,label,split")
    columns["label"] = left[0]
    order = ",".join(next((name for name, place in columns.items() if place == index), "-") for index in range(width))
    spot.note("assumed", f"no header: the columns are read as {order}; write such a first line")
    return Table(rows, columns, width)


def _counts(cells: list[str]) -> bool:
    """Whether it is the number of the row."""
    if len(cells) < 2 or not all(cell.isascii() and cell.isdigit() for cell in cells):
        return False
    return all(int(after) == int(before) + 1 for before, after in pairwise(cells))
