"""The training and validation images that a config names."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from visionlora.data.classification.csv_labels import choose_rows, examine_rows
from visionlora.data.classification.csv_table import find_table
from visionlora.data.classification.folder_labels import examine_folder
from visionlora.data.classification.labelled import LabelledImages, LabelReading, draw_shots, split_train_val
from visionlora.data.faults import describe_left_out, refuse_errors
from visionlora.data.folders import find_part, refuse_missing_folder, subfolders
from visionlora.data.images import check_readable, find_unreadable
from visionlora.errors import InputError, some
from visionlora.sections import ClassificationData


@dataclass(frozen=True)
class Split:
    """The images of a run, the files that were left out because they can't be read, and the faults passed over.

    Attributes:
        train, val: the images.
        skipped: as ``data.skip_unreadable`` asks.
        faulty: a line for each fault that ``data.faulty=leave_out`` passes over.
        advice: what a person may not expect of the choice; empty for nothing.
    """

    train: LabelledImages
    val: LabelledImages
    skipped: list[Path]
    faulty: list[str] = field(default_factory=list)
    advice: str = ""


def load_split(data: ClassificationData, seed: int, on_progress: Callable[[int], None] | None = None) -> Split:
    """Read the images, and check that every file can be decoded.

    Args:
        data: where they are.
        seed: for a validation part that is split off at random.
        on_progress: called with the number of files checked so far.

    Raises:
        InputError: whatever is wrong with the folder, the table or an image.
    """
    there = _part_names(data)
    train_part = data.train or find_part("train", there)
    val_part = data.val or (find_part("val", there) if train_part is not None else None)
    faulty: list[str] = []
    train = read_part(data, train_part, faulty=faulty)
    advice = ""
    if val_part is None:
        train, val = split_train_val(train, data.val_fraction, seed)
        if train_part is not None:
            advice = describe_missing_validation(train_part, there, data.val_fraction)
    else:
        val = read_part(data, val_part, train.classes, faulty)
    bad = leave_out_unreadable([*train.paths, *val.paths], data, faulty, on_progress)
    train, val = train.without(bad), val.without(bad)
    if not len(val):
        raise InputError("no validation images are left: none of them can be read")
    if data.hold_out:
        train, val = split_train_val(train, data.val_fraction, seed)
    if data.shots is not None:
        train = draw_shots(train, data.shots, seed)
    if empty := [name for name, count in zip(train.classes, train.counts(), strict=True) if not count]:
        raise InputError(f"no training image is left of class {some(empty)}: none of them can be read")
    return Split(train, val, sorted(bad) if data.faulty == "refuse" else [], faulty, advice)


def read_part(
    data: ClassificationData, part: str | None, classes: list[str] | None = None, faulty: list[str] | None = None
) -> LabelledImages:
    """One folder inside the root (None: the root itself), or the table's rows of one split (None: all).

    ``faulty`` is where a line is added for each fault that ``data.faulty=leave_out`` passes over.

    Raises:
        InputError: whatever is wrong with the folder or the table, unless it may be left out.
    """
    reading, where = _examine(data, part, classes)
    if data.faulty == "refuse":
        refuse_errors(reading.faults, where, f"To see all: visionlora check-data {where}; or data.faulty=leave_out")
    elif faulty is not None:
        faulty += describe_left_out(reading.faults)
    if not len(reading.data):
        raise InputError(f"{where}: no image is left of those that are listed")
    if classes is None and len(reading.data.classes) < 2 and not reading.data.multilabel:
        raise InputError(f"{where}: only one class is left ({some(reading.data.classes)}); at least two are needed")
    return reading.data


def leave_out_unreadable(
    paths: list[Path],
    data: ClassificationData,
    faulty: list[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> set[Path]:
    """The files that can't be decoded, if they may be left out; else an InputError names them."""
    if data.faulty == "refuse":
        return check_readable(paths, data.skip_unreadable, on_progress)
    unreadable = find_unreadable(paths, on_progress)
    if faulty is not None:
        faulty += [f"{path}: {reason} -> image left out" for path, reason in unreadable]
    return {path for path, _ in unreadable}


def describe_missing_validation(train: str, there: list[str], fraction: float = 0.2) -> str:
    """Says what validates where no part does, and how to name one that may be meant."""
    others = [name for name in there if name != train]
    instead = f"; data.val={others[0]} takes {others[0]} instead" if others else ""
    return f"no part to validate on: a random {fraction:.0%} of {train} (data.val_fraction) validates{instead}"


def _examine(data: ClassificationData, part: str | None, classes: list[str] | None) -> tuple[LabelReading, Path]:
    if data.csv is not None:
        table = examine_rows(data.csv, data.root, data.multilabel)
        return choose_rows(table, data.csv, part, classes), data.csv
    if data.root is None:
        raise InputError("no images: give an image folder as data.root, or a table as data.csv")
    folder = data.root if part is None else data.root / part
    refuse_missing_folder(folder)
    if (table_file := find_table(folder)) is not None:
        return choose_rows(examine_rows(table_file, None, data.multilabel), table_file, None, classes), table_file
    if data.multilabel:
        raise InputError("data.multilabel needs a table (data.csv): a folder gives an image one class")
    return examine_folder(folder, classes), folder


def _part_names(data: ClassificationData) -> list[str]:
    if data.csv is not None:
        return examine_rows(data.csv, data.root, data.multilabel).splits()
    if data.root is None:
        return []
    refuse_missing_folder(data.root)
    return [path.name for path in subfolders(data.root)]
