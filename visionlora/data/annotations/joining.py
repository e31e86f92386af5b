"""Several readings -> one data set of several parts."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages
from visionlora.data.annotations.reading import Reading
from visionlora.data.faults import Fault, Spot

PART = "part"
"""The field that says to which part an image belongs."""


def join(readings: Mapping[str, Reading], root: Path | None = None) -> Reading:
    """All images, with ``fields["part"]``, those that have one already as ``name/part``; classes by name.

    An image file that two of them list stays in the first, and is noted as a fault.

    Args:
        readings: name of the part -> what was read, one at least.
        root: the folder that all lies in, by default the one that the readings' have in common.
    """
    faults: list[Fault] = [fault for reading in readings.values() for fault in reading.faults]
    classes = list(dict.fromkeys(name for reading in readings.values() for name in reading.data.classes))
    label = {name: index for index, name in enumerate(classes)}
    first: dict[Path, str] = {}
    images: list[AnnotatedImage] = []
    for name, reading in readings.items():
        for image in reading.data.images:
            own = image.fields.get(PART)
            part = name if own is None else f"{name}/{own}"
            before = first.setdefault(image.path.resolve(), part)
            if before != part:
                text = f"{image.path.name} is in {before} and in {part}; keep it in one"
                Spot(image.path, "", faults).note("in-two-parts", text, f"kept in {before} alone")
                continue
            objects = tuple(replace(o, label=label[reading.data.classes[o.label]]) for o in image.objects)
            images.append(replace(image, objects=objects, fields={**image.fields, PART: part}))
    facts = {path: found for reading in readings.values() for path, found in reading.facts.items()}
    common = root or Path(os.path.commonpath([reading.root.absolute() for reading in readings.values()]))
    layout = next(iter(readings.values())).layout
    return Reading(AnnotatedImages(images, classes), faults, facts, common, layout)
