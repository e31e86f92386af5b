"""COCO's annotation files: boxes, polygons, run lengths, crowds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject
from visionlora.data.annotations.boxes import DROPPED, check_agreement, check_box, numbers
from visionlora.data.annotations.coco_dialects import outlines, read_bbox
from visionlora.data.annotations.coco_file import Document, Id, is_id, load_document, note_text_ids, plain_id
from visionlora.data.annotations.coco_root import find_root
from visionlora.data.annotations.coco_suspicions import note_corners
from visionlora.data.annotations.polygons import check_polygons
from visionlora.data.annotations.reading import PLAIN, Options, Reading, check_image, extent_of, look_at, note_repeats
from visionlora.data.annotations.run_lengths import check_run_lengths
from visionlora.data.faults import Fault, Spot, listed, shown
from visionlora.data.file_names import ImageFolder
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
    """Read a COCO json with ``images``, ``annotations`` and ``categories``.

    File names are relative to ``root``; without it, to the folder where they are: of the json, ``images`` beside it,
    or another one there (see ``find_root``). Classes are in the order of their ids. ``bbox`` is x, y, width, height;
    ``segmentation`` a list of polygons, or run lengths as a list or compressed; ``iscrowd`` 0 or 1. Other ways of
    writing these are read with a remark. An image's other keys become its ``fields``; other keys of an annotation,
    ``area`` among them, are not read.

    Raises:
        InputError: the file as a whole can't be used: not JSON, no COCO file, no categories, no file names.
    """
    faults: list[Fault] = []
    document = load_document(path, faults)
    names = [image.get("file_name") for image in document.images if isinstance(image, dict)]
    folder = find_root(path, names) if root is None else ImageFolder(root)
    refuse_missing_folder(folder.root)
    entries = _entries(document, path, folder, faults)
    labels = {number: label for label, number in enumerate(document.categories)}
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
    note_corners([(entry.size, [a for a, _ in entry.annotations]) for entry in listed_once], Spot(path, "", faults))
    return Reading(AnnotatedImages(images, list(document.categories.values())), faults, facts, folder.root)


def _entries(document: Document, path: Path, folder: ImageFolder, faults: list[Fault]) -> dict[Id, _Entry | None]:
    """Image id -> entry; None for one that must be left out. Two ids of one file share the entry."""
    entries: dict[Id, _Entry | None] = {}
    by_file: dict[Path, tuple[Id, _Entry]] = {}
    for index, image in enumerate(document.images):
        spot = Spot(path, f"images[{index}]", faults)
        number = plain_id(image.get("id")) if isinstance(image, dict) else None
        if not is_id(number):
            spot.note("malformed", "is no image with an 'id', which is a number", "image left out")
            continue
        spot = Spot(path, f"image {shown(number)}", faults)
        file = folder.locate(image.get("file_name"), spot)
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
    entries: dict[Id, _Entry | None],
    labels: dict[Id, int],
    faults: list[Fault],
) -> None:
    """Give each annotation to its image; those of an image that is left out go with it."""
    seen: set[Id] = set()
    plain = [annotation for annotation in document.annotations if isinstance(annotation, dict)]
    note_text_ids(
        {
            "images": [
                *(image.get("id") for image in document.images if isinstance(image, dict)),
                *(a.get("image_id") for a in plain),
            ],
            "categories": [*document.category_ids, *(a.get("category_id") for a in plain)],
        },
        path,
        faults,
    )
    for index, annotation in enumerate(document.annotations):
        spot = Spot(path, f"annotations[{index}]", faults)
        if not isinstance(annotation, dict):
            spot.note("malformed", f"is {shown(annotation)}; an annotation has keys and values", DROPPED)
            continue
        number = annotation.get("id")
        if is_id(number):
            spot = Spot(path, f"annotation {shown(number)}", faults)
            if number in seen:
                text = f"id {shown(number)} is that of an annotation before; give each its own"
                spot.note("duplicate-annotation-id", text, "numbered anew")
            seen.add(number)
        if missing := [key for key in ("image_id", "category_id") if key not in annotation]:
            there = [key for key in annotation if key.endswith("_id") and key not in ("image_id", "category_id")]
            hint = f" (there is {listed(there)})" if there else ""
            spot.note("malformed", f"has no '{missing[0]}'{hint}; add it", DROPPED)
            continue
        image, category = plain_id(annotation["image_id"]), plain_id(annotation["category_id"])
        if not is_id(image) or image not in entries:
            spot.note(
                "no-image", f"belongs to image {shown(image)}, which isn't listed; add it or remove this", DROPPED
            )
            continue
        if not is_id(category) or category not in labels:
            text = f"category {shown(category)} is none of {listed(labels, 10)}; correct it"
            if category is None:
                text = "the category is null, so that nothing says what it is; give it one"
            elif category == len(labels) and min(labels, key=str) == 0:
                text += "; are they counted from 1 here?"
            spot.note("unknown-class", text, DROPPED)
            continue
        if (entry := entries[image]) is not None:
            entry.annotations.append(({**annotation, "category_id": category}, spot))


def _object(
    annotation: dict[str, Any], labels: dict[Id, int], width: int, height: int, spot: Spot
) -> LabelledObject | None:
    """None for an annotation with a fault that leaves no object."""
    crowd = annotation.get("iscrowd") or 0
    if crowd not in (0, 1):
        spot.note("malformed", f"iscrowd is {shown(crowd)}; it is 0 or 1", DROPPED)
        return None
    box = None
    if annotation.get("bbox"):
        corners = read_bbox(annotation["bbox"], spot)
        box = None if corners is None else check_box(corners, width, height, spot)
        if box is None:
            return None
    mask = None
    if segmentation := outlines(annotation.get("segmentation"), spot):
        check = check_run_lengths if isinstance(segmentation, dict) else check_polygons
        mask = check(segmentation, width, height, spot)
        if mask is None:
            return None
        if box is None:
            spot.note("assumed", "has no 'bbox': the box around its mask is taken")
            box = extent_of(mask)
        elif not check_agreement(box, extent_of(mask), spot):
            return None
    if box is None:
        spot.note("malformed", "has no 'bbox'; add it", DROPPED)
        return None
    if crowd:
        spot.note("crowd", "iscrowd: neither trained on nor counted as a false alarm")
    return LabelledObject(labels[annotation["category_id"]], box, mask, bool(crowd), spot.where)
