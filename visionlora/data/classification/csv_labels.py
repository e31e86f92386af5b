"""The rows of a CSV of labels, each checked with its line number."""

import csv
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from visionlora.data.folders import refuse_missing_folder, what_there_is
from visionlora.errors import InputError, did_you_mean, some

SEPARATOR = "|"
"""Between the classes of one image."""


@dataclass(frozen=True)
class Row:
    """One image: where it is, its class names, its part of the data set, and its line in the CSV."""

    path: Path
    labels: tuple[str, ...]
    split: str | None
    line: int


def read_rows(csv_path: Path, root: Path, split: str | None, multilabel: bool) -> list[Row]:
    """The rows of one split, or all rows. Raises InputError as `classification.read_csv` says."""
    rows = _every_row(csv_path, root, split is not None, multilabel)
    if split is not None:
        rows = _take_split(rows, csv_path, split)
    if not rows:
        raise InputError(f"{csv_path}: no rows below the header")
    _refuse_missing(rows, csv_path)
    return rows


def split_names(csv_path: Path, root: Path, multilabel: bool) -> set[str]:
    """The values of the column `split`, none without such a column. Raises InputError for malformed rows."""
    return {row.split for row in _every_row(csv_path, root, False, multilabel) if row.split}


def _every_row(csv_path: Path, root: Path, need_split: bool, multilabel: bool) -> list[Row]:
    if not csv_path.is_file():
        raise InputError(f"{csv_path}: no such file{what_there_is(csv_path)}")
    refuse_missing_folder(root)
    with csv_path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            rows = _parse(reader, csv_path, root, need_split, multilabel)
        except UnicodeDecodeError as error:
            raise InputError(f"{csv_path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
        except csv.Error as error:
            raise InputError(f"{csv_path}, line {reader.line_num}: not well-formed CSV ({error})") from error
    _refuse_repeats(rows, csv_path)
    return rows


def _parse(reader: "csv.DictReader[str]", csv_path: Path, root: Path, need_split: bool, multilabel: bool) -> list[Row]:
    reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
    for needed in ("path", "label", "split") if need_split else ("path", "label"):
        if needed not in columns:
            raise InputError(
                f"{csv_path}, line 1: no column '{needed}'{did_you_mean(needed, columns)}; the columns are "
                f"{some(columns, 10) or 'none'} (needed: path,label and, to choose a split, split)"
            )
        if columns.count(needed) > 1:
            raise InputError(f"{csv_path}, line 1: there are {columns.count(needed)} columns '{needed}'")
    return [_row(cells, f"{csv_path}, line {reader.line_num}", reader.line_num, root, multilabel) for cells in reader]


def _row(cells: dict[str, str], where: str, line: int, root: Path, multilabel: bool) -> Row:
    if None in cells or None in cells.values():
        raise InputError(f"{where}: not as many cells as the header has; put quotes around a cell with a comma")
    path, label = cells["path"].strip(), cells["label"].strip()
    if not path:
        raise InputError(f"{where}: the path is empty")
    windows = PureWindowsPath(path)  # splits at / and \ and knows drives, so that it covers both systems
    if windows.drive or windows.root or ".." in windows.parts:
        raise InputError(f"{where}: '{path}' leaves the data folder; give a path relative to {root}, without '..'")
    split = cells["split"].strip() if "split" in cells else None
    return Row(root / path, _labels(label, where, multilabel), split, line)


def _labels(cell: str, where: str, multilabel: bool) -> tuple[str, ...]:
    if not multilabel:
        if not cell:
            raise InputError(f"{where}: the label is empty; only multi-label images may have none")
        if SEPARATOR in cell:
            several = "several labels per image need data.multilabel=true"
            raise InputError(f"{where}: label '{cell}' holds '{SEPARATOR}'; {several}")
        return (cell,)
    if not cell:
        return ()
    labels = tuple(label.strip() for label in cell.split(SEPARATOR))
    if "" in labels or len(set(labels)) < len(labels):
        raise InputError(f"{where}: label '{cell}' has an empty or a repeated class")
    return labels


def _refuse_repeats(rows: list[Row], csv_path: Path) -> None:
    """One image in two rows is a wrong label, a leak between splits, or counts double."""
    first: dict[Path, int] = {}
    for row in rows:
        if row.path in first:
            raise InputError(
                f"{csv_path}, line {row.line}: '{row.path.name}' is listed before, on line "
                f"{first[row.path]}; one row per image, several classes as a{SEPARATOR}b"
            )
        first[row.path] = row.line


def _take_split(rows: list[Row], csv_path: Path, split: str) -> list[Row]:
    taken = [row for row in rows if row.split == split]
    if not taken:
        there = sorted({row.split or "(empty)" for row in rows})
        raise InputError(
            f"{csv_path}: no row with split '{split}'{did_you_mean(split, there)}; "
            f"the splits are {some(there, 10) or 'none'}"
        )
    return taken


def _refuse_missing(rows: list[Row], csv_path: Path) -> None:
    missing = [row for row in rows if not row.path.is_file()]
    if missing:
        listed = some(f"{row.path} (line {row.line})" for row in missing)
        raise InputError(f"{csv_path}: {len(missing)} of {len(rows)} images are missing: {listed}")
