"""Annotated images in whatever layout they lie: COCO, Pascal VOC or YOLO, told by the path."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.boxes import DROPPED
from visionlora.data.annotations.choosing import select, without_classes
from visionlora.data.annotations.coco import read_coco
from visionlora.data.annotations.reading import PLAIN, Options, Progress, Reading
from visionlora.data.annotations.voc import read_voc
from visionlora.data.annotations.yolo import read_yolo
from visionlora.data.faults import Spot, refuse_errors, shown
from visionlora.data.folders import what_there_is
from visionlora.errors import InputError, did_you_mean, some

_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")


def read_annotations(
    path: Path,
    root: Path | None = None,
    part: str | None = None,
    classes: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    skip_unreadable: bool = False,
    on_progress: Progress | None = None,
) -> AnnotatedImages:
    """Read a data set for training or evaluation; anything wrong with it is refused, and nothing repaired.

    Every image is decoded once. What is a fault and what only a remark is listed in `faults`.

    Args:
        path: a COCO .json, a YOLO data.yaml, or a folder: of Pascal VOC, or with a data.yaml or one .json in it.
        root: the folder of the images; by default the layout's own.
        part: one part of it: of YOLO train, val or test, of VOC a list in ImageSets/Main, of COCO the images
            whose field `part` says so. None takes everything.
        classes: those of the training data; the file's are matched to them by name.
        leave_out: classes whose objects are not read, while their images are (see `choosing.without_classes`).
        skip_unreadable: leave images out that can't be decoded.
        on_progress: called as images are decoded.

    Raises:
        InputError: the file can't be read at all, or has faults; they are counted, and the first are shown.
    """
    reading = examine_annotations(path, root, part, classes, leave_out, Options(skip_unreadable, on_progress))
    refuse_errors(reading.faults, path)
    return reading.data


def examine_annotations(
    path: Path,
    root: Path | None = None,
    part: str | None = None,
    classes: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    options: Options = PLAIN,
) -> Reading:
    """As `read_annotations`, with the faults collected instead of refused.

    Raises:
        InputError: the file can't be read at all, or has no such part, or class to leave out.
    """
    layout, path = find_layout(path)
    if layout == "coco":
        reading = read_coco(path, root, options)
        if part is not None:
            reading = replace(reading, data=select(reading.data, {"part": [part]}))
    elif layout == "yolo":
        reading = read_yolo(path, root, part, options)
    else:
        if root is not None:
            raise InputError(f"{path}: Pascal VOC has its images in its own folder; leave the root out")
        reading = read_voc(path, part, options)
    if classes is not None:
        return _match(reading, list(classes), leave_out)
    reading = replace(reading, data=without_classes(reading.data, leave_out))
    if not sum(reading.data.counts()) and not any(fault.is_error for fault in reading.faults):
        Spot(path, "", reading.faults).note("empty", f"none of {len(reading.data)} images shows an object to train on")
    return reading


def find_layout(path: Path) -> tuple[str, Path]:
    """``coco``, ``voc`` or ``yolo``, and the file or folder to read.

    Raises:
        InputError: no such path, or it is none of them.
    """
    found = detect_layout(path)
    if found is not None:
        return found
    if not path.exists():
        raise InputError(f"{path}: no such file or folder{what_there_is(path)}")
    wanted = "a COCO .json, a YOLO data.yaml, or a folder with Annotations (Pascal VOC)"
    if path.is_dir():
        there = sorted(entry.name for entry in path.iterdir() if entry.name[0] != ".")
        raise InputError(f"{path}: holds no annotations that are known ({some(there) or 'nothing'}); give {wanted}")
    raise InputError(f"{path}: is no annotation file; give {wanted}")


def detect_layout(path: Path) -> tuple[str, Path] | None:
    """As `find_layout`, and None where there is none. InputError for a folder with several .json files."""
    suffix = path.suffix.lower()
    if path.is_file():
        layout = {".json": "coco", ".yaml": "yolo", ".yml": "yolo"}.get(suffix)
        return (layout, path) if layout else None
    if not path.is_dir():
        return None
    for name in _YAML_NAMES:
        if (path / name).is_file():
            return "yolo", path / name
    if (path / "Annotations").is_dir() or any(path.glob("*.xml")):
        return "voc", path
    documents = sorted(path.glob("*.json"))
    if len(documents) > 1:
        raise InputError(f"{path}: holds {some(document.name for document in documents)}; name those that are meant")
    return ("coco", documents[0]) if documents else None


def _match(reading: Reading, classes: list[str], leave_out: Sequence[str]) -> Reading:
    """Number the objects as `classes` does; one of another class goes, and is a fault unless it is left out."""
    number = {name: index for index, name in enumerate(classes)}
    faults = list(reading.faults)
    images = []
    for image in reading.data.images:
        kept = []
        for thing in image.objects:
            name = reading.data.classes[thing.label]
            if name in number:
                kept.append(replace(thing, label=number[name]))
            elif name not in leave_out:
                text = f"class {shown(name)} is not among the training classes {some(classes, 10)}"
                hint = did_you_mean(name, classes)
                Spot(image.path, thing.source, faults).note("unknown-class", f"{text}{hint}", DROPPED)
        images.append(replace(image, objects=tuple(kept)))
    return replace(reading, data=AnnotatedImages(images, classes), faults=faults)
