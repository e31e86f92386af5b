"""The images with a class for every pixel, to train and to validate on, that a config names."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from visionlora.data.annotations.choosing import every_nth, select, split_in_order, spread
from visionlora.data.annotations.layouts import first_of
from visionlora.data.annotations.reading import Options
from visionlora.data.annotations.split import (
    choose_part,
    load_annotated_split,
    read_annotated,
    refuse_two_ways,
    split_by_frames,
)
from visionlora.data.faults import Fault, Spot, describe_left_out, refuse_errors
from visionlora.data.folders import find_part
from visionlora.data.frame_manifest import fields_of
from visionlora.data.segmentation.class_files import find_class_file, read_classes
from visionlora.data.segmentation.listed_validation import split_by_list
from visionlora.data.segmentation.mask_folders import (
    MaskPlace,
    find_given_folders,
    find_mask_folders,
    find_mask_parts,
    given_parts,
)
from visionlora.data.segmentation.mask_reading import examine_mask_folders, note_classes
from visionlora.data.segmentation.object_masks import segment_objects
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.errors import InputError, some
from visionlora.sections import SegmentationData, Selection

_OF_MASKS = ("classes", "images", "masks", "mask_suffix", "round_masks")
_OF_OBJECTS = ("val_annotations", "order_by", "leave_out")


@dataclass(frozen=True)
class SegmentedSplit:
    """The images of a run, the files that were left out because they can't be read, and faults passed over."""

    train: SegmentedImages
    val: SegmentedImages
    skipped: list[Path]
    faulty: list[str] = field(default_factory=list)


def load_segmented_split(data: SegmentationData, classes: list[str] | None = None) -> SegmentedSplit:
    """Read masks or objects, check every file, and choose the images.

    Args:
        data: the settings.
        classes: of a trained model; by default those of the data, of which the training images must show two.

    Raises:
        InputError: whatever is wrong with the settings, a mask, an image or the choice; an image that is in both
            parts; nothing to validate on.
    """
    _refuse_settings(data)
    if data.annotations is not None:
        annotated = load_annotated_split(data, _of_objects(data, classes))
        train, val = (segment_objects(part, data.background) for part in (annotated.train, annotated.val))
        split = SegmentedSplit(train, val, annotated.skipped, annotated.faulty)
    else:
        split = _split_masks(data, classes)
    where = _where(data)
    if classes is None:
        faults: list[Fault] = []
        note_classes(split.train, Spot(where, "", faults))
        refuse_errors(faults, where, "A segmenter needs two classes to tell apart")
    _refuse_nothing_to_measure(split.val, where)
    return split


def read_segmented_part(
    data: SegmentationData, part: str, classes: list[str], faulty: list[str] | None = None
) -> tuple[SegmentedImages, list[Path]]:
    """One part, to evaluate a trained model on, and the files that were left out because they can't be read.

    Args:
        data: the settings.
        part: of masks, its name, or what ``train`` and ``val`` stand for in the settings; of annotated images, as in
            ``choose_part``. ``all`` is every annotated image, or masks in folders without parts.
        classes: of the model.
        faulty: to add a line to for each fault that ``data.faulty=leave_out`` passes over.

    Raises:
        InputError: as ``load_segmented_split``, or there is no such part.
    """
    _refuse_settings(data)
    if data.annotations is not None:
        path = data.val_annotations if part == "val" and data.val_annotations is not None else data.annotations
        annotated, skipped = read_annotated(data, path, _of_objects(data, classes), faulty)
        chosen = annotated if part == "all" else choose_part(data, annotated, part)
        images = segment_objects(chosen, data.background)
    else:
        named: Selection = {"train": data.train, "val": data.val}.get(part) or part
        field_name, equals, values = part.partition("=")
        if equals and part not in _part_names(data):
            named = {field_name: values.split(",")}
        images, skipped = _read_masks(data, None if part == "all" else named, classes, faulty=faulty)
    _refuse_nothing_to_measure(images, _where(data))
    return images, skipped


def _split_masks(data: SegmentationData, classes: list[str] | None) -> SegmentedSplit:
    there = _part_names(data)
    train_part = data.train or (find_part("train", there) if data.split_by is None else None)
    val_part = data.val or (find_part("val", there) if train_part and data.split_by is None else None)
    faulty: list[str] = []
    train, skipped = _read_masks(data, train_part, classes, training=True, faulty=faulty)
    if data.split_by is not None:
        refuse_two_ways(data, None)
        train, val = split_by_frames(data, train)
    elif val_part is None:
        listed = split_by_list(data.root, train) if train_part is None else None
        train, val = listed or split_in_order(train, 1 - data.val_fraction, data.gap)
    else:
        val, more = _read_masks(data, val_part, classes, faulty=faulty)
        skipped += more
        taken = {image.path for image in val.images}
        if train_part is None:
            train = train.subset(i for i, image in enumerate(train.images) if image.path not in taken)
        elif both := [image.path for image in train.images if image.path in taken]:
            raise InputError(f"data.train and data.val both have {some(both, 2)}; let no image be in both")
    if data.hold_out and data.split_by is not None:
        train, val = split_by_frames(data, train)
    elif data.hold_out:
        train, val = split_in_order(train, 1 - data.val_fraction, data.gap)
    train = spread(every_nth(train, data.every), data.shots)
    return SegmentedSplit(train, val, sorted(set(skipped)), list(dict.fromkeys(faulty)))


def _read_masks(
    data: SegmentationData,
    part: Selection,
    classes: list[str] | None,
    training: bool = False,
    faulty: list[str] | None = None,
) -> tuple[SegmentedImages, list[Path]]:
    """A part, None for everything, and the files left out; ``faulty`` gets a line for each fault passed over."""
    place, class_file = _place(data, part if isinstance(part, str) else None), _class_file(data)
    class_map = read_classes(class_file, data.round_masks)
    if classes is not None and list(class_map.names) != classes:
        raise InputError(
            f"{class_file}: its classes ({some(class_map.names, 12)}) are not the model's ({some(classes, 12)}); "
            "give the file that the model was trained with as data.classes"
        )
    reading = examine_mask_folders(place, class_map, data.mask_suffix, Options(data.skip_unreadable))
    # To measure, one class is enough.
    faults = [fault for fault in reading.faults if training or fault.kind != "one-class"]
    if data.faulty == "refuse":
        refuse_errors(faults, place.masks, f"To see all: {_command(data, place, class_file)}; or data.faulty=leave_out")
    elif faulty is not None:
        faulty += describe_left_out(faults)
    if not len(reading.data):
        raise InputError(f"{place.images}: no image is left: none of them can be read")
    known = fields_of([image.path for image in reading.data.images], data.frames)
    images = [replace(image, fields=known.get(image.path, {})) for image in reading.data.images]
    read = replace(reading.data, images=images)
    if isinstance(part, dict):
        read = select(read, part)
    return read, [facts.path for facts in reading.facts.values() if facts.reason is not None]


def _command(data: SegmentationData, place: MaskPlace, class_file: Path) -> str:
    suffix = f" --suffix {data.mask_suffix}" if data.mask_suffix else ""
    nearest = " --round-masks" if data.round_masks else ""
    where = f"{place.images} --masks {place.masks}" if data.root is None else str(data.root)
    return f"visionlora check-data {where} --classes {class_file}{suffix}{nearest}"


def _class_file(data: SegmentationData) -> Path:
    found = data.classes or (find_class_file(data.root) if data.root is not None else None)
    if found is None:
        raise InputError("no classes: give data.classes, a YAML file that names them, as in classes: [road, car]")
    return found


def _place(data: SegmentationData, part: str | None) -> MaskPlace:
    if data.images is None or data.masks is None:
        assert data.root is not None
        return find_mask_folders(data.root, part)
    return find_given_folders(data.images, data.masks, part)


def _where(data: SegmentationData) -> Path:
    """The path that messages name."""
    return first_of(data.annotations) if data.annotations else data.masks or data.root or Path()


def _part_names(data: SegmentationData) -> list[str]:
    """Of the parts that have images and masks."""
    if data.images is None or data.masks is None:
        return [] if data.root is None or not data.root.is_dir() else list(find_mask_parts(data.root))
    return list(given_parts(data.images, data.masks))


def _refuse_settings(data: SegmentationData) -> None:
    """Raises InputError unless they name masks, or objects, and nothing that the other would need."""
    given = {name for name in (*_OF_MASKS, *_OF_OBJECTS) if getattr(data, name)}
    if data.annotations is not None:
        if wrong := [name for name in _OF_MASKS if name in given]:
            raise InputError(f"data.{wrong[0]} is for mask files, and data.annotations has its own classes and masks")
        return
    if data.root is None and data.images is None and data.masks is None:
        raise InputError(
            "no images: give data.root, or data.images and data.masks, with data.classes; or data.annotations"
        )
    _class_file(data)
    if (data.images is None) != (data.masks is None):
        raise InputError("data.images and data.masks are folders that belong together; give both, or data.root")
    if data.root is not None and data.images is not None:
        raise InputError("data.root and data.images both say where the images are; give one of them")
    if wrong := [name for name in _OF_OBJECTS if name in given]:
        raise InputError(f"data.{wrong[0]} is for annotated images, and here masks are files")


def _of_objects(data: SegmentationData, classes: list[str] | None) -> list[str] | None:
    """A model's classes without the background, which is no object."""
    if classes is None or data.background is None:
        return classes
    if classes[0] != data.background:
        raise InputError(
            f"data.background is '{data.background}', and the model's first class '{classes[0]}'; "
            "give data.background as the model was trained"
        )
    return classes[1:]


def _refuse_nothing_to_measure(images: SegmentedImages, where: Path) -> None:
    if not sum(images.counts()):
        raise InputError(f"{where}: no pixel of the {len(images)} images to evaluate on has a class; all are ignored")
