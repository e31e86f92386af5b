"""Annotated images in whatever layout they lie, told by the path; several paths are parts of one data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.boxes import DROPPED
from visionlora.data.annotations.choosing import select, without_classes
from visionlora.data.annotations.coco import read_coco
from visionlora.data.annotations.coco_suspicions import note_crowd_masks
from visionlora.data.annotations.cvat import read_cvat
from visionlora.data.annotations.joining import PART, join
from visionlora.data.annotations.label_studio import read_label_studio
from visionlora.data.annotations.labelme import read_labelme
from visionlora.data.annotations.part_names import names_of
from visionlora.data.annotations.reading import PLAIN, Options, Progress, Reading
from visionlora.data.annotations.recognising import Layout, recognise
from visionlora.data.annotations.via import read_via
from visionlora.data.annotations.voc import read_voc
from visionlora.data.annotations.yolo import read_yolo
from visionlora.data.faults import Spot, listed, refuse_errors, shown
from visionlora.data.folders import what_there_is
from visionlora.data.frame_manifest import fields_of
from visionlora.errors import InputError, did_you_mean, some

WANTED = (
    "a COCO .json, a YOLO data.yaml, a folder with Annotations (Pascal VOC), or what CVAT, Label Studio, LabelMe or "
    "VIA write"
)
"""For messages."""

_READERS = {
    "coco": read_coco,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "via": read_via,
    "label-studio": read_label_studio,
}
"""Of formats that have a root and no parts of their own."""


def read_annotations(
    path: Path | Sequence[Path],
    root: Path | None = None,
    part: str | None = None,
    classes: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    skip_unreadable: bool = False,
    on_progress: Progress | None = None,
) -> AnnotatedImages:
    """Read a data set for training or evaluation; anything wrong with it is refused, and nothing repaired.

    Every image is decoded once. What is a fault and what only a remark is listed in ``faults``.

    Args:
        path: a COCO .json, a YOLO data.yaml, or a folder: of Pascal VOC, or what else ``recognising`` knows. Several
            are parts of one data set.
        root: the folder of the images; by default the layout's own.
        part: one part of it: of YOLO train, val or test, of VOC a list in ImageSets/Main, of COCO the images
            whose field ``part`` says so. None takes everything.
        classes: those of the training data; the file's are matched to them by name.
        leave_out: classes whose objects are not read, while their images are (see ``choosing.without_classes``).
        skip_unreadable: leave images out that can't be decoded.
        on_progress: called as images are decoded.

    Raises:
        InputError: the file can't be read at all, or has faults; they are counted, and the first are shown.
    """
    reading = examine_annotations(path, root, part, classes, leave_out, Options(skip_unreadable, on_progress))
    refuse_errors(reading.faults, first_of(path))
    return reading.data


def examine_annotations(
    path: Path | Sequence[Path],
    root: Path | None = None,
    part: str | None = None,
    classes: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    options: Options = PLAIN,
) -> Reading:
    """As ``read_annotations``, with the faults collected instead of refused.

    Raises:
        InputError: the file can't be read at all, or has no such part, or class to leave out.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    if len(paths) == 1:
        reading = _examine(paths[0], root, part, options)
    else:
        reading = join({n: _examine(p, root, None, options) for n, p in zip(names_of(paths), paths, strict=True)})
        if part is not None:
            reading = replace(reading, data=select(reading.data, {PART: [part]}))
    reading = replace(reading, data=_with_fields(reading.data, options))
    _note_alike(reading, paths[0])
    if classes is not None:
        return _match(reading, list(classes), leave_out)
    reading = replace(reading, data=without_classes(reading.data, leave_out))
    spot = Spot(paths[0], "", reading.faults)
    only_crowds = options.crowds == "ignore" and note_crowd_masks(reading.data.images, spot)
    if not sum(reading.data.counts()) and not only_crowds and not any(fault.is_error for fault in reading.faults):
        spot.note("empty", f"none of {len(reading.data)} images shows an object to train on")
    return reading


def first_of(path: Path | Sequence[Path]) -> Path:
    """The path that messages name."""
    return path if isinstance(path, Path) else path[0]


def find_layout(path: Path) -> Layout:
    """The format, and what to read.

    Raises:
        InputError: no such path, or no format that is known, with what was seen.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder{what_there_is(path)}")
    found = recognise(path)
    if found is not None:
        return found
    if path.is_dir():
        there = sorted(entry.name for entry in path.iterdir() if entry.name[0] != ".")
        raise InputError(f"{path}: holds no annotations that are known ({some(there) or 'nothing'}); give {WANTED}")
    raise InputError(f"{path}: is no annotation file; give {WANTED}")


def _examine(path: Path, root: Path | None, part: str | None, options: Options) -> Reading:
    """One path, which may have parts."""
    layout = find_layout(path)
    if layout.parts:
        found = {name: _read(Layout(layout.format, file), root, None, options) for name, file in layout.parts.items()}
        reading = join(found, layout.path)
    else:
        reading = _read(layout, root, part, options)
    if part is not None and (layout.parts or layout.format not in ("yolo", "voc")):
        reading = replace(reading, data=select(reading.data, {PART: [part]}))
    if options.crowds == "objects":
        reading = _without_crowds(reading)
    return replace(reading, layout=layout.format)


def _read(layout: Layout, root: Path | None, part: str | None, options: Options) -> Reading:
    if layout.format == "yolo":
        return read_yolo(layout.path, root, part, options)
    if layout.format == "voc":
        return read_voc(layout.path, part, options, root)
    return _READERS[layout.format](layout.path, root, options)


def _without_crowds(reading: Reading) -> Reading:
    """With crowds as objects like any other."""
    images = [
        replace(image, objects=tuple(replace(thing, crowd=False) for thing in image.objects))
        for image in reading.data.images
    ]
    faults = [fault for fault in reading.faults if fault.kind not in ("crowd", "difficult")]
    return replace(reading, data=replace(reading.data, images=images), faults=faults)


def _with_fields(data: AnnotatedImages, options: Options) -> AnnotatedImages:
    """With what lists of frames know of the images; what the annotations say of one counts more."""
    known = fields_of([image.path for image in data.images], options.frames)
    if not known:
        return data
    images = [replace(image, fields={**known.get(image.path, {}), **image.fields}) for image in data.images]
    return replace(data, images=images)


def _note_alike(reading: Reading, path: Path) -> None:
    """A remark for classes whose names differ in capitals, spaces and the like alone."""
    alike: dict[str, list[str]] = {}
    for name in reading.data.classes:
        alike.setdefault("".join(name.casefold().replace("_", " ").replace("-", " ").split()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            text = f"the classes {listed(names)} are read as different ones; are they one?"
            Spot(path, "", reading.faults).note("classes-alike", text)


def _match(reading: Reading, classes: list[str], leave_out: Sequence[str]) -> Reading:
    """Number the objects as ``classes`` does; one of another class goes, and is a fault unless it is left out."""
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
