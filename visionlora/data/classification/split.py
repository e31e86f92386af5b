"""The training and validation images that a config names."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from visionlora.data.annotations.choosing import matching
from visionlora.data.classification.csv_labels import choose_rows, examine_rows
from visionlora.data.classification.csv_table import find_table
from visionlora.data.classification.folder_labels import examine_folder
from visionlora.data.classification.labelled import LabelledImages, LabelReading, draw_shots, split_train_val
from visionlora.data.faults import describe_left_out, refuse_errors
from visionlora.data.folders import find_part, refuse_missing_folder, subfolders
from visionlora.data.frame_manifest import fields_of
from visionlora.data.frame_split import refuse_unknown, split_frames
from visionlora.data.images import check_readable, find_unreadable
from visionlora.errors import InputError, some
from visionlora.sections import ClassificationData, Selection


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
    faulty: list[str] = []
    train, val, advice = _choose(data, seed, faulty)
    bad = leave_out_unreadable([*train.paths, *val.paths], data, faulty, on_progress)
    train, val = train.without(bad), val.without(bad)
    if not len(val):
        raise InputError("no validation images are left: none of them can be read")
    if data.hold_out and data.split_by in ("camera", "day", "time"):
        train, val = _split_by_frames(data, train)
    elif data.hold_out:
        _refuse_random_frames(data, train)
        train, val = split_train_val(train, data.val_fraction, seed)
    if data.shots is not None:
        train = draw_shots(train, data.shots, seed)
    if empty := [name for name, count in zip(train.classes, train.counts(), strict=True) if not count]:
        why = "none of them can be read" if bad else "all of them validate, or are too near to such; split otherwise"
        raise InputError(f"no training image is left of class {some(empty)}: {why}")
    return Split(train, val, sorted(bad) if data.faulty == "refuse" else [], faulty, advice)


def _choose(data: ClassificationData, seed: int, faulty: list[str]) -> tuple[LabelledImages, LabelledImages, str]:
    """Training and validation images, which may have unreadable ones, and what a person may not expect."""
    if data.split_by is not None and data.val is not None:
        raise InputError("data.split_by and data.val both say what validates; give one of them")
    if data.split_by in ("camera", "day", "time"):
        return *_split_by_frames(data, read_part(data, data.train, faulty=faulty)), ""
    there = _part_names(data)
    train_part = data.train or find_part("train", there)
    val_part = data.val or (find_part("val", there) if train_part is not None and data.split_by is None else None)
    chosen = read_part(data, train_part, faulty=faulty)
    if val_part is not None:
        return *_apart(chosen, read_part(data, val_part, chosen.classes, faulty), data), ""
    _refuse_random_frames(data, chosen)
    missing = isinstance(train_part, str) and data.split_by is None
    advice = describe_missing_validation(str(train_part), there, data.val_fraction) if missing else ""
    return *split_train_val(chosen, data.val_fraction, seed), advice


def _split_by_frames(data: ClassificationData, images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    assert data.split_by is not None and data.split_by != "random"
    fields = fields_of(images.paths, data.frames)
    refuse_unknown(fields, images.paths, data.split_by)
    known = [fields[path] for path in images.paths]
    train, val = split_frames(known, data.split_by, data.val_fraction, data.block_seconds, data.gap_seconds)
    return images.subset(train), images.subset(val)


def _apart(
    train: LabelledImages, val: LabelledImages, data: ClassificationData
) -> tuple[LabelledImages, LabelledImages]:
    """Both, where they were chosen by fields: what validates is no training data."""
    if not isinstance(data.train, dict) and not isinstance(data.val, dict):
        return train, val
    both = set(train.paths) & set(val.paths)
    if both and data.train is not None:
        raise InputError(f"data.train and data.val both have {some(sorted(both), 2)}; let no image be in both")
    return train.without(both), val


def _refuse_random_frames(data: ClassificationData, images: LabelledImages) -> None:
    """Raises InputError for frames of recordings that are to be split at random, unless it was asked for twice."""
    if data.split_by == "random" and data.random_frames:
        return
    frames = len(fields_of(images.paths, data.frames))
    if frames:
        raise InputError(
            f"{frames} of {len(images)} images are frames of recordings, whose neighbours are nearly equal: a random "
            "part would validate on what was trained; give data.split_by=camera, day or time. If random is meant: "
            "data.split_by=random and data.random_frames=true"
        )


def read_part(
    data: ClassificationData, part: Selection, classes: list[str] | None = None, faulty: list[str] | None = None
) -> LabelledImages:
    """One folder inside the root (None: the root itself), or the table's rows of one split (None: all).

    Of frames it may also be chosen by fields, as ``{"camera": ["gate"]}`` or ``camera=gate,yard``, where no folder is
    called so. ``faulty`` is where a line is added for each fault that ``data.faulty=leave_out`` passes over.

    Raises:
        InputError: whatever is wrong with the folder or the table, unless it may be left out.
    """
    wanted = _by_fields(data, part)
    reading, where = _examine(data, None if wanted is not None or isinstance(part, dict) else part, classes)
    if data.faulty == "refuse":
        refuse_errors(reading.faults, where, f"To see all: visionlora check-data {where}; or data.faulty=leave_out")
    elif faulty is not None:
        faulty += describe_left_out(reading.faults)
    if not len(reading.data):
        raise InputError(f"{where}: no image is left of those that are listed")
    if wanted is not None:
        reading = replace(reading, data=_select(reading.data, wanted, data))
    if classes is None and len(reading.data.classes) < 2 and not reading.data.multilabel:
        raise InputError(f"{where}: only one class is left ({some(reading.data.classes)}); at least two are needed")
    return reading.data


def _by_fields(data: ClassificationData, part: Selection) -> dict[str, list[str]] | None:
    """The values by field that a part is chosen by; None if it isn't."""
    if isinstance(part, dict) or part is None:
        return part
    named = {"train": data.train, "val": data.val}.get(part)
    if isinstance(named, dict):
        return named
    field, equals, values = part.partition("=")
    return {field: values.split(",")} if equals and part not in _part_names(data) else None


def _select(images: LabelledImages, wanted: dict[str, list[str]], data: ClassificationData) -> LabelledImages:
    fields = fields_of(images.paths, data.frames)
    return images.subset(matching([fields.get(path, {}) for path in images.paths], wanted))


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
