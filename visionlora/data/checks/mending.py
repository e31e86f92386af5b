"""A mended copy of annotated images, as COCO."""

import os
import shutil
from pathlib import Path

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.coco_writing import to_coco
from visionlora.data.annotations.reading import Reading
from visionlora.errors import InputError
from visionlora.files import new_folder, write_json

ANNOTATIONS, IMAGES, CHANGES = "annotations.json", "images", "changes.txt"


def refuse_target(out: Path) -> None:
    """Raises InputError unless ``out`` is absent or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already and is no empty folder; give another for the mended copy")


def write_mended(reading: Reading, out: Path) -> list[str]:
    """Write ``reading.data`` with copies of its images; what was read isn't touched.

    A folder beside ``out`` is filled and then renamed, so that ``out`` is whole or absent. Returns the changes, one
    line each, which changes.txt holds as well. Ids are counted anew from 1, in order.

    Raises:
        InputError: ``out`` is no empty or absent folder, lies in the folder of the images, or no object is left.
    """
    refuse_target(out)
    if out.resolve().is_relative_to(reading.root.resolve()):
        raise InputError(f"{out}: lies in {reading.root}, which is not to be changed; give a folder outside of it")
    if not sum(reading.data.counts()):
        raise InputError(f"nothing is left to be written to {out}: no object in {reading.root} can be used")
    changes = [f"{fault} -> {fault.mended}" for fault in reading.faults if fault.mended]
    names = _names(reading.data)
    with new_folder(out) as temporary:
        for image, name in zip(reading.data.images, names, strict=True):
            target = temporary / IMAGES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image.path, target)
        write_json(temporary / ANNOTATIONS, to_coco(reading.data, names))
        text = "".join(f"{line}\n" for line in changes)
        (temporary / CHANGES).write_text(text, encoding="utf-8", errors="backslashreplace")
    return changes


def _names(data: AnnotatedImages) -> list[str]:
    """The images' paths from the folder that they have in common."""
    common = os.path.commonpath([image.path.parent.absolute() for image in data.images])
    return [image.path.absolute().relative_to(common).as_posix() for image in data.images]
