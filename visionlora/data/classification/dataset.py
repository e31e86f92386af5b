"""Labelled images: what every way of laying them out is read into."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from visionlora.data.classification.csv_labels import read_rows
from visionlora.data.folders import class_folders, images_in, refuse_unread_formats
from visionlora.data.other_layouts import refuse_what_is_no_class_folders
from visionlora.errors import InputError, did_you_mean, some


@dataclass(frozen=True)
class LabelledImages:
    """Image files with the indices of their classes: exactly one each, or any number if `multilabel`."""

    paths: list[Path]
    labels: list[tuple[int, ...]]
    classes: list[str]
    multilabel: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self) -> list[int]:
        """Images per class."""
        counts = [0] * len(self.classes)
        for label in self.labels:
            for index in label:
                counts[index] += 1
        return counts

    def subset(self, indices: Iterable[int]) -> "LabelledImages":
        """These images, in this order; the classes stay."""
        chosen = list(indices)
        return replace(self, paths=[self.paths[i] for i in chosen], labels=[self.labels[i] for i in chosen])

    def without(self, paths: Collection[Path]) -> "LabelledImages":
        """All images but these; the classes stay."""
        left_out = set(paths)
        return self.subset(i for i, path in enumerate(self.paths) if path not in left_out)


def read_folder(root: Path, classes: list[str] | None = None) -> LabelledImages:
    """Read `root`/class/**/image, the layout of torchvision's ImageFolder, sorted by name.

    Hidden files and folders, files that are no images, and images that lie directly in `root` are not read.
    `classes` are those of the training images: a folder may then be missing, but none may be new.

    Raises:
        InputError: no such folder, no class folders, fewer than two classes, a class folder without an image
            or not among `classes`, or images in a format that isn't read (HEIC, AVIF, GIF ...); or the folder is of
            boxes or masks.
    """
    folders = class_folders(root)
    refuse_what_is_no_class_folders(root)
    if classes is None:
        classes = sorted(folders)
        _need_two(classes, root)
    unknown = sorted(folders.keys() - set(classes))
    if unknown:
        raise InputError(
            f"{root}: class folder{'s' * (len(unknown) > 1)} {some(unknown)} not among the training classes "
            f"{some(classes, 10)}{did_you_mean(unknown[0], classes)}"
        )
    paths: list[Path] = []
    labels: list[tuple[int, ...]] = []
    for index, name in enumerate(classes):
        if name not in folders:
            continue
        refuse_unread_formats(folders[name])
        images = images_in(folders[name])
        if not images:
            raise InputError(f"{folders[name]}: class '{name}' has no image; add some or remove the folder")
        paths += images
        labels += [(index,)] * len(images)
    return LabelledImages(paths, labels, list(classes))


def read_csv(
    csv_path: Path,
    root: Path | None = None,
    split: str | None = None,
    classes: list[str] | None = None,
    multilabel: bool = False,
) -> LabelledImages:
    """Read a CSV with a header and the columns `path`, `label` and optionally `split`.

    Paths are relative to `root`, or else to the CSV's folder. `split` takes the rows with this value, None
    takes every row. If `multilabel`, a label cell holds classes separated by `|`, or nothing. `classes` are
    those of the training images; without them, the classes of the rows taken, sorted by name.

    Raises:
        InputError: with the line number, for whatever a row has wrong; a missing image (all are counted),
            a path outside the folder, an image listed twice, an unknown split or class, only one class.
    """
    rows = read_rows(csv_path, root or csv_path.parent, split, multilabel)
    names = sorted({name for row in rows for name in row.labels}) if classes is None else list(classes)
    if classes is None and not multilabel:
        _need_two(names, csv_path)
    if not names:
        raise InputError(f"{csv_path}: no row has a label; fill in the column 'label'")
    number = {name: index for index, name in enumerate(names)}
    for row in rows:
        for name in row.labels:
            if name not in number:
                raise InputError(
                    f"{csv_path}, line {row.line}: class '{name}' is not among the training classes "
                    f"{some(names, 10)}{did_you_mean(name, names)}"
                )
    return LabelledImages(
        paths=[row.path for row in rows],
        labels=[tuple(sorted(number[name] for name in row.labels)) for row in rows],
        classes=names,
        multilabel=multilabel,
    )


def split_train_val(data: LabelledImages, fraction: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Put about `fraction` of the images aside for validation, by (seed) alone.

    Drawn class by class: at least one image of each class that has two, and never the last one. Multi-label
    images are drawn from all together. Frames of one camera must not be split like this (data/README.md).

    Raises:
        InputError: `fraction` isn't between 0 and 1, or one of the two parts would be empty.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the fraction for validation is {fraction}; give a number between 0 and 1")
    generator = np.random.default_rng(seed)
    groups: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(data.labels):
        groups[0 if data.multilabel else label[0]].append(index)
    held_out: set[int] = set()
    for group in sorted(groups):
        shuffled = generator.permutation(groups[group]).tolist()
        wanted = max(1, round(fraction * len(shuffled)))
        held_out.update(shuffled[: min(wanted, len(shuffled) - 1)])
    if not held_out:
        raise InputError(f"{len(data)} images can't be split: no class has two; add images")
    return (
        data.subset(i for i in range(len(data)) if i not in held_out),
        data.subset(sorted(held_out)),
    )


def _need_two(classes: list[str], where: Path) -> None:
    if len(classes) < 2:
        raise InputError(f"{where}: only one class ({some(classes)}); classification needs at least two")
