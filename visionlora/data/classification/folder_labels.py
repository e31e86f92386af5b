"""Labelled images from class folders, with every fault collected."""

from pathlib import Path

from visionlora.data.classification.class_folders import class_folders
from visionlora.data.classification.labelled import LabelledImages, LabelReading
from visionlora.data.faults import Fault, Spot, refuse_errors, shown
from visionlora.data.folders import images_in, refuse_unread_formats
from visionlora.data.images import is_image
from visionlora.errors import InputError, did_you_mean, some


def read_folder(root: Path, classes: list[str] | None = None) -> LabelledImages:
    """Read ``root``/class/**/image, the layout of torchvision's ImageFolder, sorted by name.

    Hidden files and folders, files that are no images, and images that lie directly in ``root`` are not read.
    ``classes`` are those of the training images: a folder may then be missing, but none may be new.

    Raises:
        InputError: no such folder, no class folders, fewer than two classes, a class folder without an image
            or not among ``classes``, or images in a format that isn't read (HEIC, AVIF ...).
    """
    reading = examine_folder(root, classes)
    refuse_errors(reading.faults, root, f"Run visionlora check-data {root} to see all")
    return reading.data


def examine_folder(root: Path, classes: list[str] | None = None) -> LabelReading:
    """As ``read_folder``, with the faults collected. InputError where there are no class folders at all."""
    faults: list[Fault] = []
    folders = class_folders(root)
    loose = [path.name for path in sorted(root.iterdir()) if is_image(path) and path.name[0] != "." and path.is_file()]
    if loose:
        text = f"{len(loose)} image files lie beside the class folders ({some(loose)}); they are not read"
        Spot(root, "", faults).note("no-annotation", text)
    images = {name: _images(folder, faults) for name, folder in folders.items()}
    names = list(classes) if classes is not None else sorted(name for name, found in images.items() if found)
    if classes is None and len(names) < 2 and not any(fault.is_error for fault in faults):
        text = f"only one class ({some(folders)}); classification needs at least two"
        Spot(root, "", faults).note("one-label", text)
    paths: list[Path] = []
    labels: list[tuple[int, ...]] = []
    for index, name in enumerate(names):
        paths += images.get(name, [])
        labels += [(index,)] * len(images.get(name, []))
    for name in sorted(folders.keys() - set(names)):
        if images[name]:
            text = f"class folder {shown(name)} is not among the training classes {some(names, 10)}"
            spot = Spot(folders[name], "", faults)
            spot.note("unknown-class", f"{text}{did_you_mean(name, names)}", "its images left out")
    return LabelReading(LabelledImages(paths, labels, names), faults)


def _images(folder: Path, faults: list[Fault]) -> list[Path]:
    spot = Spot(folder, "", faults)
    try:
        refuse_unread_formats(folder)
    except InputError as error:
        spot.note("unread-format", str(error).removeprefix(f"{folder}: "), "left out")
    images = images_in(folder)
    if not images:
        spot.note("empty", f"class {shown(folder.name)} has no image; add some, or move the folder away", "left out")
    return images
