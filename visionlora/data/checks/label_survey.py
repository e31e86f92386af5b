"""Class folders as `check-data` sees them: every fault, where training stops at the first."""

from pathlib import Path

from visionlora.data.annotations.reading import Options, look_at
from visionlora.data.checks.survey import Part, Survey
from visionlora.data.classification.dataset import LabelledImages
from visionlora.data.faults import Fault, Spot, shown
from visionlora.data.folders import PARTS, class_folders, images_in, refuse_missing_folder, refuse_unread_formats
from visionlora.data.images import is_image
from visionlora.errors import InputError, did_you_mean, some


def survey_labels(root: Path, options: Options) -> Survey:
    """Read a folder of class folders, or one with train, val and the like in it.

    Raises:
        InputError: no such folder, or no class folders in it.
    """
    refuse_missing_folder(root)
    faults: list[Fault] = []
    folders = _part_folders(root, faults)
    classes: list[str] = []
    parts = []
    for name, folder in folders.items():
        part = _read_part(folder, classes, faults)
        classes = classes or part.classes
        parts.append((name, part))
    facts = look_at([path for _, part in parts for path in part.paths], options)
    unreadable = {path for path, found in facts.items() if found.reason is not None}
    for path in sorted(unreadable):
        kind, advice = ("left-out", "") if options.skip_unreadable else ("unreadable", "; replace or remove it")
        Spot(path, "", faults).note(kind, f"{facts[path].reason}{advice}")
    readable = [Part(name, part.without(unreadable)) for name, part in parts]
    return Survey("folders", readable, facts, faults)


def _part_folders(root: Path, faults: list[Fault]) -> dict[str, Path]:
    """Part -> folder, training first; the root itself, without a name, if it has no parts."""
    folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."}
    parts = {name: path for name, path in folders.items() if name.lower() in PARTS}
    has_training = any(name.lower().startswith("train") for name in parts)
    if not parts or (len(parts) < len(folders) and not has_training):
        return {"": root}
    if others := [name for name in folders if name not in parts]:
        Spot(root, "", faults).note("no-annotation", f"{some(others)}: no part of the data set, not read")
    return dict(sorted(parts.items(), key=lambda item: PARTS.index(item[0].lower())))


def _read_part(root: Path, classes: list[str], faults: list[Fault]) -> LabelledImages:
    """The class folders of one part; `classes` are those of the training part, none for that part itself."""
    folders = class_folders(root)
    if not classes and len(folders) < 2:
        Spot(root, "", faults).note("empty", f"only one class ({some(folders)}); classification needs at least two")
    loose = [path.name for path in sorted(root.iterdir()) if path.is_file() and is_image(path)]
    if loose:
        text = f"{len(loose)} image files lie beside the class folders ({some(loose)}); they are not read"
        Spot(root, "", faults).note("no-annotation", text)
    paths: list[Path] = []
    labels: list[tuple[int, ...]] = []
    numbers = {name: index for index, name in enumerate(classes or sorted(folders))}
    for folder_name, folder in folders.items():
        spot = Spot(folder, "", faults)
        try:
            refuse_unread_formats(folder)
        except InputError as error:
            spot.note("unread-format", str(error).removeprefix(f"{folder}: "))
        images = images_in(folder)
        if not images:
            spot.note("empty", "the class has no image; add some or remove the folder")
        if folder_name not in numbers:
            text = f"class {shown(folder_name)} is not among the training classes {some(classes, 10)}"
            spot.note("unknown-class", f"{text}{did_you_mean(folder_name, classes)}")
            continue
        paths += images
        labels += [(numbers[folder_name],)] * len(images)
    return LabelledImages(paths, labels, list(numbers))
