"""The annotated images to train and to validate on that a config names."""

from dataclasses import dataclass, field
from pathlib import Path

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.choosing import AnyImages, every_nth, select, split_in_order, spread
from visionlora.data.annotations.layouts import WANTED, examine_annotations, first_of
from visionlora.data.annotations.reading import Options
from visionlora.data.faults import describe_left_out, refuse_errors
from visionlora.data.frame_split import split_frames
from visionlora.errors import InputError, some
from visionlora.sections import AnnotatedData, Selection


@dataclass(frozen=True)
class AnnotatedSplit:
    """The images of a run, the files that were left out because they can't be read, and the faults passed over.

    ``faulty`` has a line for each fault of a data set that training would refuse otherwise, with what was done.
    """

    train: AnnotatedImages
    val: AnnotatedImages
    skipped: list[Path]
    faulty: list[str] = field(default_factory=list)


def load_annotated_split(data: AnnotatedData, classes: list[str] | None = None) -> AnnotatedSplit:
    """Read the annotations, check every image, and choose the images.

    Args:
        data: the settings.
        classes: of a trained model; by default those of the annotations, of which some object must then be there.

    Raises:
        InputError: whatever is wrong with the annotations, an image or the choice; an image that is in both parts;
            no object to train on; frames that can't be split as asked.
    """
    if data.annotations is None:
        raise InputError(f"no images: give data.annotations, {WANTED}")
    faulty: list[str] = []
    whole, skipped = read_annotated(data, data.annotations, classes, faulty)
    chosen = data.train or (_part(whole, "train") if data.split_by is None else None)
    if data.split_by is not None:
        refuse_two_ways(data, data.val_annotations)
        train, val = split_by_frames(data, _select(whole, chosen))
    elif data.val_annotations is not None:
        train = _select(whole, chosen)
        val, more = read_annotated(data, data.val_annotations, whole.classes, faulty)
        val, skipped = _select(val, data.val or _part(val, "val")), [*skipped, *more]
    elif wanted := data.val or (_part(whole, "val") if chosen is not None else None):
        val = _select(whole, wanted)
        train = _without(whole, val) if chosen is None else _select(whole, chosen)
    else:
        train, val = split_in_order(_select(whole, chosen), 1 - data.val_fraction, data.gap, data.order_by)
    if data.hold_out and data.split_by is not None:
        train, val = split_by_frames(data, train)
    elif data.hold_out:
        train, val = split_in_order(train, 1 - data.val_fraction, data.gap, data.order_by)
    train = spread(every_nth(train, data.every), data.shots)
    if both := {image.path for image in train.images} & {image.path for image in val.images}:
        raise InputError(f"data.train and data.val both have {some(sorted(both), 2)}; let no image be in both")
    if classes is None and not sum(train.counts()):
        crowds = sum(thing.crowd for image in train.images for thing in image.objects)
        hint = f"; {crowds} are marked as crowds, and data.crowds=objects trains on those" if crowds else ""
        raise InputError(f"none of the {len(train)} training images shows an object of {some(train.classes)}{hint}")
    return AnnotatedSplit(train, val, sorted(set(skipped)), faulty)


def read_annotated(
    data: AnnotatedData, path: Path | list[Path], classes: list[str] | None = None, faulty: list[str] | None = None
) -> tuple[AnnotatedImages, list[Path]]:
    """All images of annotation files or folders, and those that were left out because they can't be read.

    Args:
        data: the settings.
        path: what to read; several are parts of one data set.
        classes: of the training data, if they are known.
        faulty: to add a line to for each fault that ``data.faulty=leave_out`` passes over.

    Raises:
        InputError: whatever is wrong with the annotations or an image, unless it may be left out.
    """
    options = Options(data.skip_unreadable, crowds=data.crowds, frames=data.frames)
    reading = examine_annotations(path, data.root, None, classes, data.leave_out, options)
    where = first_of(path)
    if data.faulty == "leave_out":
        if faulty is not None:
            faulty += describe_left_out(reading.faults)
    else:
        refuse_errors(reading.faults, where)
    if not len(reading.data):
        raise InputError(f"{where}: no image is left: none of them can be read")
    return reading.data, [facts.path for facts in reading.facts.values() if facts.reason is not None]


def split_by_frames(data: AnnotatedData, images: AnyImages) -> tuple[AnyImages, AnyImages]:
    """For training and for validation, as ``data.split_by`` asks; see ``split_frames``."""
    assert data.split_by is not None
    fields = [image.fields for image in images.images]
    train, val = split_frames(fields, data.split_by, data.val_fraction, data.block_seconds, data.gap_seconds)
    return images.subset(train), images.subset(val)


def refuse_two_ways(data: AnnotatedData, annotations: object) -> None:
    """Raises InputError if ``data.split_by`` isn't all that says what validates."""
    if given := [name for name, value in (("val", data.val), ("val_annotations", annotations)) if value is not None]:
        raise InputError(f"data.split_by and data.{given[0]} both say what validates; give one of them")


def choose_part(data: AnnotatedData, images: AnnotatedImages, part: str) -> AnnotatedImages:
    """A part by its name, or by ``field=value,value``; ``train`` and ``val`` are also what the settings call so.

    Raises:
        InputError: there is no such part, field or value.
    """
    field, equals, values = part.partition("=")
    if equals:
        return select(images, {field: values.split(",")})
    named = {"train": data.train, "val": data.val}.get(part)
    return _select(images, named if isinstance(named, dict) else part)


def _part(images: AnnotatedImages, name: str) -> str | None:
    """The name, if the images have parts and one is called so."""
    return name if any(image.fields.get("part") == name for image in images.images) else None


def _select(images: AnnotatedImages, wanted: Selection) -> AnnotatedImages:
    if wanted is None:
        return images
    return select(images, {"part": [wanted]} if isinstance(wanted, str) else wanted)


def _without(images: AnnotatedImages, others: AnnotatedImages) -> AnnotatedImages:
    taken = {image.path for image in others.images}
    return images.subset(i for i, image in enumerate(images.images) if image.path not in taken)
