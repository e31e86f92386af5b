"""A mended copy of annotated images, as COCO."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from visionlora.data.annotations import polygons, run_lengths
from visionlora.data.annotations.annotated import AnnotatedImages, LabelledObject, Polygons
from visionlora.data.annotations.reading import Reading
from visionlora.errors import InputError
from visionlora.files import write_json

ANNOTATIONS, IMAGES, CHANGES = "annotations.json", "images", "changes.txt"


def refuse_target(out: Path) -> None:
    """Raises InputError unless `out` is absent or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already and is no empty folder; give another for the mended copy")


def write_mended(reading: Reading, out: Path) -> list[str]:
    """Write `reading.data` with copies of its images; what was read isn't touched.

    A folder beside `out` is filled and then renamed, so that `out` is whole or absent. Returns the changes, one
    line each, which changes.txt holds as well. Ids are counted anew from 1, in order.

    Raises:
        InputError: `out` is no empty or absent folder, lies in the folder of the images, or no object is left.
    """
    refuse_target(out)
    if out.resolve().is_relative_to(reading.root.resolve()):
        raise InputError(f"{out}: lies in {reading.root}, which is not to be changed; give a folder outside of it")
    if not sum(reading.data.counts()):
        raise InputError(f"nothing is left to be written to {out}: no object in {reading.root} can be used")
    changes = [f"{fault} -> {fault.mended}" for fault in reading.faults if fault.mended]
    names = _names(reading.data)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        for image, name in zip(reading.data.images, names, strict=True):
            target = temporary / IMAGES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image.path, target)
        write_json(temporary / ANNOTATIONS, to_coco(reading.data, names))
        text = "".join(f"{line}\n" for line in changes)
        (temporary / CHANGES).write_text(text, encoding="utf-8", errors="backslashreplace")
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return changes


def to_coco(data: AnnotatedImages, names: list[str]) -> dict[str, Any]:
    """A COCO document; `names` are the images' file names in it. Fields become keys of the images."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, name) in enumerate(zip(data.images, names, strict=True), start=1):
        images.append({"id": number, "file_name": name, "width": image.width, "height": image.height, **image.fields})
        for thing in image.objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **_annotation(thing)})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(data.classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(thing: LabelledObject) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    area = (x2 - x1) * (y2 - y1)
    segmentation: Any = []
    if isinstance(thing.mask, Polygons):
        area = polygons.area(thing.mask)
        segmentation = [[_plain(value) for value in ring] for ring in thing.mask.rings]
    elif thing.mask is not None:
        area = run_lengths.area(thing.mask)
        size = [thing.mask.height, thing.mask.width]
        segmentation = {"size": size, "counts": thing.mask.counts.decode("ascii")}
    return {
        "category_id": thing.label + 1,
        "bbox": [_plain(value) for value in (x1, y1, x2 - x1, y2 - y1)],
        "area": _plain(area),
        "iscrowd": int(thing.crowd),
        "segmentation": segmentation,
    }


def _plain(value: float) -> float:
    """Without the noise of a subtraction: 50.24, not 50.23999999999999."""
    return round(value, 6)


def _names(data: AnnotatedImages) -> list[str]:
    """The images' paths from the folder that they have in common."""
    common = os.path.commonpath([image.path.parent.absolute() for image in data.images])
    return [image.path.absolute().relative_to(common).as_posix() for image in data.images]
