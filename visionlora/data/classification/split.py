"""The training and validation images that a config names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visionlora.data.classification.csv_labels import split_names
from visionlora.data.classification.dataset import LabelledImages, read_csv, read_folder, split_train_val
from visionlora.data.folders import refuse_missing_folder
from visionlora.data.images import check_readable
from visionlora.errors import InputError, some
from visionlora.sections import ClassificationData


@dataclass(frozen=True)
class Split:
    """The images of a run, and the files that were left out because they can't be read."""

    train: LabelledImages
    val: LabelledImages
    skipped: list[Path]


def load_split(data: ClassificationData, seed: int, on_progress: Callable[[int], None] | None = None) -> Split:
    """Read the images, and check that every file can be decoded.

    Args:
        data: where they are.
        seed: for a validation part that is split off at random.
        on_progress: called with the number of files checked so far.

    Raises:
        InputError: whatever is wrong with the folder, the table or an image.
    """
    train_part, val_part = _parts(data)
    train = read_part(data, train_part)
    if val_part is None:
        train, val = split_train_val(train, data.val_fraction, seed)
    else:
        val = read_part(data, val_part, train.classes)
    bad = check_readable([*train.paths, *val.paths], data.skip_unreadable, on_progress)
    train, val = train.without(bad), val.without(bad)
    if not len(val):
        raise InputError("no validation images are left: none of them can be read")
    if empty := [name for name, count in zip(train.classes, train.counts(), strict=True) if not count]:
        raise InputError(f"no training image is left of class {some(empty)}: none of them can be read")
    return Split(train, val, sorted(bad))


def read_part(data: ClassificationData, part: str | None, classes: list[str] | None = None) -> LabelledImages:
    """One folder inside the root (None: the root itself), or the table's rows of one split (None: all).

    Raises:
        InputError: whatever is wrong with the folder or the table.
    """
    if data.csv is not None:
        return read_csv(data.csv, data.root, split=part, classes=classes, multilabel=data.multilabel)
    if data.root is None:
        raise InputError("no images: give an image folder as data.root, or a table as data.csv")
    if data.multilabel:
        raise InputError("data.multilabel needs a table (data.csv): a folder gives an image one class")
    return read_folder(data.root if part is None else data.root / part, classes)


def _parts(data: ClassificationData) -> tuple[str | None, str | None]:
    """Names of the training and the validation part; None: everything, and nothing."""
    there: set[str] = set()
    if data.csv is not None:
        there = split_names(data.csv, data.root or data.csv.parent, data.multilabel)
    elif data.root is not None:
        refuse_missing_folder(data.root)
        there = {path.name for path in data.root.iterdir() if path.is_dir()}
    train = data.train or ("train" if "train" in there else None)
    val = data.val or ("val" if "val" in there and train is not None else None)
    return train, val
