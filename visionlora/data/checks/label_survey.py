"""Class folders and tables of labels as ``check-data`` sees them: every fault, where training stops at the first."""

from pathlib import Path

from visionlora.data.annotations.reading import Options, look_at
from visionlora.data.checks.survey import Part, Survey
from visionlora.data.classification.class_folders import part_folders
from visionlora.data.classification.csv_labels import Rows, choose_rows, examine_rows
from visionlora.data.classification.csv_table import find_table
from visionlora.data.classification.folder_labels import examine_folder
from visionlora.data.classification.labelled import LabelledImages, LabelReading
from visionlora.data.classification.split import describe_missing_validation
from visionlora.data.faults import Fault, Spot
from visionlora.data.folders import find_part, subfolders
from visionlora.data.frame_manifest import fields_of, read_frames
from visionlora.errors import some


def survey_labels(root: Path, options: Options) -> Survey:
    """Read a folder of class folders or with a table, or one with train, val and the like in it.

    Raises:
        InputError: no such folder, or no class folders in it.
    """
    faults: list[Fault] = []
    folders = part_folders(root)
    if "" not in folders and (others := [path.name for path in subfolders(root) if path.name not in folders]):
        Spot(root, "", faults).note("no-annotation", f"{some(others)}: no part of the data set, not read")
    classes: list[str] | None = None
    parts = []
    for name, folder in folders.items():
        table = find_table(folder)
        reading = examine_folder(folder, classes) if table is None else _examine_table(table, classes)
        faults += reading.faults
        classes = classes or reading.data.classes
        parts.append((name, reading.data))
    _note_validation([name for name in folders if name], root, faults, _are_frames(parts, options))
    return _survey(parts, faults, "folders" if find_table(next(iter(folders.values()))) is None else "table", options)


def survey_frames(root: Path, options: Options) -> Survey:
    """Read frames of recordings that nobody has labelled yet: one part without classes.

    Raises:
        InputError: their list can't be read.
    """
    paths = [root / entry.file for entry in read_frames(root)]
    faults: list[Fault] = []
    Spot(root, "", faults).note("empty", f"none of {len(paths)} frames has a label; annotate them, and give the file")
    return _survey([("", LabelledImages(paths, [()] * len(paths), [], multilabel=True))], faults, "frames", options)


def survey_table(path: Path, root: Path | None, options: Options) -> Survey:
    """Read a table of images and labels; its column ``split`` makes the parts.

    Raises:
        InputError: it can't be read at all.
    """
    rows = examine_rows(path, root)
    names = ["train", "val", "test"]
    splits = sorted(rows.splits(), key=lambda name: next((i for i, n in enumerate(names) if n in name.lower()), 3))
    parts: list[tuple[str, LabelledImages]] = []
    faults = list(rows.faults)
    bare = Rows(rows.rows, [], rows.classes, rows.multilabel)
    classes: list[str] | None = None
    for split in splits or [""]:
        reading = choose_rows(bare, path, split or None, classes)
        classes = classes or reading.data.classes
        faults += reading.faults
        parts.append((split, reading.data))
    _note_validation(splits, path, faults, _are_frames(parts, options))
    return _survey(parts, faults, "table", options)


def _examine_table(path: Path, classes: list[str] | None) -> LabelReading:
    return choose_rows(examine_rows(path), path, None, classes)


def _are_frames(parts: list[tuple[str, LabelledImages]], options: Options) -> bool:
    """Whether a list of frames knows some of the images."""
    return bool(fields_of([path for _, part in parts for path in part.paths], options.frames))


def _note_validation(parts: list[str], where: Path, faults: list[Fault], frames: bool) -> None:
    """A remark where training would split a part off at random, or refuse to."""
    train = find_part("train", parts)
    if frames and find_part("val", parts) is None:
        text = "frames of recordings, and no part to validate on: give data.split_by=camera, day or time"
        Spot(where, "", faults).note("frames", text)
    elif train is not None and find_part("val", parts) is None:
        Spot(where, "", faults).note("no-validation", describe_missing_validation(train, parts))


def _survey(parts: list[tuple[str, LabelledImages]], faults: list[Fault], layout: str, options: Options) -> Survey:
    facts = look_at([path for _, part in parts for path in part.paths], options)
    unreadable = {path for path, found in facts.items() if found.reason is not None}
    for path in sorted(unreadable):
        kind, advice = ("left-out", "") if options.skip_unreadable else ("unreadable", "; replace or remove it")
        Spot(path, "", faults).note(kind, f"{facts[path].reason}{advice}", "image left out")
    readable = [Part(name, part.without(unreadable)) for name, part in parts]
    return Survey(layout, readable, facts, faults)
