"""Labelled images from a table, each row checked with its line number."""

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from visionlora.data.classification.csv_table import Table, read_table
from visionlora.data.classification.labelled import LabelledImages, LabelReading
from visionlora.data.faults import Fault, Spot, refuse_errors, shown
from visionlora.data.file_names import ImageFolder, is_file, leaves
from visionlora.data.folders import refuse_missing_folder
from visionlora.errors import InputError, did_you_mean, some

SEPARATOR = "|"
"""Between the classes of one image."""

_LEFT_OUT = "row left out"


@dataclass(frozen=True)
class Row:
    """One image: where it is, its class names, its part of the data set, and its line in the table."""

    path: Path
    labels: tuple[str, ...]
    split: str | None
    line: int


@dataclass(frozen=True)
class Rows:
    """All that a table says.

    Attributes:
        rows: those with which nothing is wrong.
        faults: of all.
        classes: as the table has them, where it has a column for each; else those that occur.
        multilabel: whether rows may have several labels or none: as asked, or because some do.
    """

    rows: list[Row]
    faults: list[Fault]
    classes: list[str]
    multilabel: bool

    def splits(self) -> list[str]:
        """The values of the column ``split``, sorted; none without such a column."""
        return sorted({row.split for row in self.rows if row.split})


def read_csv(
    csv_path: Path,
    root: Path | None = None,
    split: str | None = None,
    classes: list[str] | None = None,
    multilabel: bool = False,
) -> LabelledImages:
    """Read a table of the columns ``path``, ``label`` and optionally ``split``; anything wrong is refused.

    Paths are relative to ``root``, or else to the table's folder. ``split`` takes the rows with this value, None
    takes every row. If ``multilabel``, a label cell holds classes separated by ``|``, or nothing; or each class has a
    column of 0 and 1. ``classes`` are those of the training images; without them, the classes of the rows taken,
    sorted by name.

    Raises:
        InputError: with the line number, for whatever a row has wrong: a missing image, a path outside the folder,
            an image listed twice; an unknown split or class, only one class.
    """
    reading = choose_rows(examine_rows(csv_path, root, multilabel), csv_path, split, classes)
    refuse_errors(reading.faults, csv_path, f"Run visionlora check-data {csv_path} to see all")
    return reading.data


def examine_rows(csv_path: Path, root: Path | None = None, multilabel: bool | None = None) -> Rows:
    """Every row of a table, with the faults collected. ``multilabel`` None: if some row has several labels, or none.

    Raises:
        InputError: the table can't be read at all.
    """
    faults: list[Fault] = []
    table = read_table(csv_path, faults)
    root = root or csv_path.parent
    refuse_missing_folder(root)
    if multilabel is None:
        multilabel = _has_several(table)
        if multilabel:
            text = "rows have several labels, or none: train with data.multilabel=true"
            Spot(csv_path, "", faults).note("assumed", text)
    images = ImageFolder(root)
    rows: list[Row] = []
    first: dict[Path, int] = {}
    for line, cells in table.rows:
        spot = Spot(csv_path, f"line {line}", faults)
        row = _row(table, cells, line, images, multilabel, spot)
        if row is None:
            continue
        if row.path in first:
            # A wrong label, a leak between splits, or an image that counts double.
            text = f"'{row.path.name}' is listed before, on line {first[row.path]}; one row per image"
            spot.note("duplicate-file", f"{text}, several classes as a{SEPARATOR}b", _LEFT_OUT)
            continue
        first[row.path] = line
        rows.append(row)
    return Rows(rows, faults, sorted(table.one_hot), multilabel)


def choose_rows(
    table: Rows, csv_path: Path, split: str | None = None, classes: list[str] | None = None
) -> LabelReading:
    """The rows of one split, None for all, as labelled images; ``classes`` are those of the training images.

    Raises:
        InputError: no such split, or no row is left.
    """
    faults = list(table.faults)
    rows = table.rows if split is None else _take_split(table.rows, csv_path, split)
    names = classes or table.classes or sorted({name for row in rows for name in row.labels})
    broken = any(fault.is_error for fault in faults)  # then nobody knows which classes there are
    if classes is None and not table.multilabel and len(names) < 2 and not broken:
        text = f"only one class ({some(names)}); classification needs at least two"
        Spot(csv_path, "", faults).note("one-label", text)
    elif not names and not broken:
        Spot(csv_path, "", faults).note("one-label", "no row has a label; fill in the column 'label'")
    number = {name: index for index, name in enumerate(names)}
    known = []
    for row in rows:
        unknown = [name for name in row.labels if name not in number]
        for name in unknown:
            text = f"class {shown(name)} is not among the training classes {some(names, 10)}"
            spot = Spot(csv_path, f"line {row.line}", faults)
            spot.note("unknown-class", f"{text}{did_you_mean(name, names)}", _LEFT_OUT)
        if not unknown:
            known.append(row)
    labels = [tuple(sorted(number[name] for name in row.labels)) for row in known]
    return LabelReading(LabelledImages([row.path for row in known], labels, list(names), table.multilabel), faults)


def _has_several(table: Table) -> bool:
    rows = [table.labels(cells) for _, cells in table.rows if len(cells) == table.width]
    return any(len(labels) != 1 if isinstance(labels, list) else SEPARATOR in labels for labels in rows)


def _row(table: Table, cells: list[str], line: int, images: ImageFolder, multilabel: bool, spot: Spot) -> Row | None:
    """None, noted, if something is wrong with it."""
    if len(cells) != table.width:
        text = f"not as many cells as the header has ({len(cells)} and {table.width})"
        spot.note("malformed", f"{text}; put quotes around a cell with a comma", _LEFT_OUT)
        return None
    given = cells[table.columns["path"]]
    if not given:
        spot.note("malformed", "the path is empty", _LEFT_OUT)
        return None
    path = images.locate(_inside(given, images.root, spot), spot)
    labels = _labels(table.labels(cells), multilabel, spot)
    if path is None or labels is None:
        return None
    return Row(path, labels, cells[table.columns["split"]] if "split" in table.columns else None, line)


def _inside(given: str, root: Path, spot: Spot) -> str:
    """An absolute path as one that is relative to the root, if that has the file."""
    parts = PureWindowsPath(given)
    if not (parts.drive or parts.root) or ".." in parts.parts:
        return given
    for start in range(1, len(parts.parts)):
        inner = Path(*parts.parts[start:])
        if is_file(root / inner) and not leaves(str(inner)):
            if not is_file(Path(given)) or not Path(given).samefile(root / inner):
                spot.note("other-path", f"{shown(given)} is taken for {inner.as_posix()} in {root}")
            return str(inner)
    return given


def _labels(cell: str | list[str], multilabel: bool, spot: Spot) -> tuple[str, ...] | None:
    """None, noted, if something is wrong with them."""
    several = "several labels per image need data.multilabel=true"
    if isinstance(cell, list):
        if not multilabel and len(cell) != 1:
            has = f"has {len(cell)} classes with a 1 ({some(cell)})" if cell else "has no class with a 1"
            spot.note("several-labels", f"{has}; {several}", _LEFT_OUT)
            return None
        return tuple(cell)
    if not multilabel:
        if not cell:
            spot.note("malformed", "the label is empty; only multi-label images may have none", _LEFT_OUT)
            return None
        if SEPARATOR in cell:
            spot.note("several-labels", f"label {shown(cell)} holds '{SEPARATOR}'; {several}", _LEFT_OUT)
            return None
        return (cell,)
    labels = tuple(label.strip() for label in cell.split(SEPARATOR)) if cell else ()
    if "" in labels or len(set(labels)) < len(labels):
        spot.note("malformed", f"label {shown(cell)} has an empty or a repeated class", _LEFT_OUT)
        return None
    return labels


def _take_split(rows: list[Row], csv_path: Path, split: str) -> list[Row]:
    taken = [row for row in rows if row.split == split]
    if not taken:
        there = sorted({row.split or "(empty)" for row in rows if row.split is not None})
        if not there:
            raise InputError(f"{csv_path}: no column 'split', which {split} is to be taken from")
        raise InputError(
            f"{csv_path}: no row with split '{split}'{did_you_mean(split, there)}; the splits are {some(there, 10)}"
        )
    return taken
