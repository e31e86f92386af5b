"""COCO's annotation files: boxes, polygons, run lengths, crowds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject
from visionlora.data.annotations.boxes import DROPPED, check_agreement, check_box, numbers
from visionlora.data.annotations.coco_file import Document, load_document
from visionlora.data.annotations.polygons import check_polygons
from visionlora.data.annotations.reading import PLAIN, Options, Reading, check_image, extent_of, look_at, note_repeats
from visionlora.data.annotations.run_lengths import check_run_lengths
from visionlora.data.faults import Fault, Spot, listed, shown
from visionlora.data.file_names import is_file, leaves, locate
from visionlora.data.folders import refuse_missing_folder

_OWN_KEYS = {"id", "file_name", "width", "height"}


@dataclass
class _Entry:
    """One image as the file lists it, and the annotations that belong to it."""

    path: Path
    size: tuple[float, float] | None
    fields: dict[str, Any]
    spot: Spot
    annotations: list[tuple[dict[str, Any], Spot]] = field(default_factory=list)


def read_coco(path: Path, root: Path | None = None, options: Options = PLAIN) -> Reading:
    """Read a COCO json with `images`, `annotations` and `categories`.

    File names are relative to `root`; without it, to the folder of the json, or to `images` beside it. Classes
    are in the order of their ids. `bbox` is x, y, width, height; `segmentation` a list of polygons, or run
    lengths as a list or compressed; `iscrowd` 0 or 1. An image's other keys become its `fields`; other keys of
    an annotation, `area` among them, are not read.

    Raises:
        InputError: the file as a whole can't be used: not JSON, no COCO file, no categories, no file names.
    """
    document = load_document(path)
    if root is None:
        root = _find_root(path.parent, document)
    refuse_missing_folder(root)
    faults: list[Fault] = []
    classes = [name for _, name in sorted(document.categories.items())]
    entries = _entries(document, path, root, faults)
    labels = {number: label for label, number in enumerate(sorted(document.categories))}
    _hand_out(document, path, entries, labels, faults)
    listed_once = list({id(entry): entry for entry in entries.values() if entry is not None}.values())
    facts = look_at([entry.path for entry in listed_once], options)
    images = []
    for entry in listed_once:
        frame = check_image(facts[entry.path], entry.size, entry.spot, options)
        if frame is None:
            continue
        found = [_object(annotation, labels, frame.width, frame.height, spot) for annotation, spot in entry.annotations]
        things = [thing for thing in found if thing is not None]
        note_repeats(things, entry.spot)
        size = facts[entry.path].width, facts[entry.path].height
        images.append(AnnotatedImage(entry.path, *size, frame.turned(things), entry.fields))
    if not document.images:
        Spot(path, "", faults).note("empty", "lists no images; annotate some")
    return Reading(AnnotatedImages(images, classes), faults, facts, root)


def _find_root(folder: Path, document: Document) -> Path:
    """The json's folder, or `images` in it where only there is one of the files."""
    names = [image.get("file_name") for image in document.images if isinstance(image, dict)]
    plain = [name.replace("\\", "/") for name in names if isinstance(name, str) and not leaves(name)]
    for candidate in (folder, folder / "images"):
        if any(is_file(candidate / name) for name in plain):
            return candidate
    return folder


def _entries(document: Document, path: Path, root: Path, faults: list[Fault]) -> dict[int | str, _Entry | None]:
    """Image id -> entry; None for one that must be left out. Two ids of one file share the entry."""
    entries: dict[int | str, _Entry | None] = {}
    by_file: dict[Path, tuple[int | str, _Entry]] = {}
    for index, image in enumerate(document.images):
        spot = Spot(path, f"images[{index}]", faults)
        if not isinstance(image, dict) or not _is_id(image.get("id")):
            spot.note("malformed", "is no image with an 'id', which is a number", "image left out")
            continue
        number = image["id"]
        spot = Spot(path, f"image {shown(number)}", faults)
        file = locate(root, image.get("file_name"), spot)
        if number in entries:
            before = entries[number]
            same = before is not None and file is not None and before.path.resolve() == file.resolve()
            text = f"id {shown(number)} is that of an image before; give each image its own"
            spot.note("duplicate-image-id", text, "the second left out" if same else "both images left out")
            if not same:
                entries[number] = None
            continue
        entries[number] = None
        if file is None:
            continue
        if (real := file.resolve()) in by_file:
            other, entry = by_file[real]
            text = f"lists {shown(image['file_name'])}, as image {shown(other)} does; list it once, with all objects"
            spot.note("duplicate-file", text, "the two merged")
            entries[number] = entry
            continue
        fields = {key: value for key, value in image.items() if key not in _OWN_KEYS}
        entry = _Entry(file, _size(image, spot), fields, spot)
        entries[number] = entry
        by_file[real] = (number, entry)
    return entries


def _size(image: dict[str, Any], spot: Spot) -> tuple[float, float] | None:
    """(width, height), or None, noted, where the file's must be taken."""
    given = [image.get("width"), image.get("height")]
    mended = "the file's size taken"
    if given == [None, None]:
        spot.note("no-size", "has no width and height; the file's are taken", mended)
        return None
    size = numbers(given, "[width, height]", spot, mended)
    return None if size is None else (size[0], size[1])


def _hand_out(
    document: Document,
    path: Path,
    entries: dict[int | str, _Entry | None],
    labels: dict[int, int],
    faults: list[Fault],
) -> None:
    """Give each annotation to its image; those of an image that is left out go with it."""
    seen: set[int | str] = set()
    for index, annotation in enumerate(document.annotations):
        spot = Spot(path, f"annotations[{index}]", faults)
        if not isinstance(annotation, dict):
            spot.note("malformed", f"is {shown(annotation)}; an annotation has keys and values", DROPPED)
            continue
        number = annotation.get("id")
        if _is_id(number):
            spot = Spot(path, f"annotation {shown(number)}", faults)
            if number in seen:
                text = f"id {shown(number)} is that of an annotation before; give each its own"
                spot.note("duplicate-annotation-id", text, "numbered anew")
            seen.add(number)
        if missing := [key for key in ("image_id", "category_id", "bbox") if key not in annotation]:
            spot.note("malformed", f"has no '{missing[0]}'; add it", DROPPED)
            continue
        image, category = annotation["image_id"], annotation["category_id"]
        if not _is_id(image) or image not in entries:
            spot.note(
                "no-image", f"belongs to image {shown(image)}, which isn't listed; add it or remove this", DROPPED
            )
            continue
        if type(category) is not int or category not in labels:
            text = f"category {shown(category)} is none of {listed(labels, 10)}; correct it"
            spot.note("unknown-class", text, DROPPED)
            continue
        if (entry := entries[image]) is not None:
            entry.annotations.append((annotation, spot))


def _object(
    annotation: dict[str, Any], labels: dict[int, int], width: int, height: int, spot: Spot
) -> LabelledObject | None:
    """None for an annotation with a fault that leaves no object."""
    values = numbers(annotation["bbox"], "the bbox", spot)
    if values is None:
        return None
    if len(values) != 4:
        spot.note("malformed", f"the bbox has {len(values)} values; it is x, y, width, height", DROPPED)
        return None
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        spot.note("malformed", f"iscrowd is {shown(crowd)}; it is 0 or 1", DROPPED)
        return None
    x, y, w, h = values
    box = check_box((x, y, x + w, y + h), width, height, spot)
    if box is None:
        return None
    segmentation = annotation.get("segmentation")
    mask = None
    if segmentation:
        check = check_run_lengths if isinstance(segmentation, dict) else check_polygons
        mask = check(segmentation, width, height, spot)
        if mask is None or not check_agreement(box, extent_of(mask), spot):
            return None
    if crowd:
        spot.note("crowd", "iscrowd: neither trained on nor counted as a false alarm")
    return LabelledObject(labels[annotation["category_id"]], box, mask, bool(crowd), spot.where)


def _is_id(value: object) -> TypeGuard[int | str]:
    return isinstance(value, (int, str)) and not isinstance(value, bool)
