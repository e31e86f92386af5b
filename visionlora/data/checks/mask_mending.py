"""A mended copy of images with mask files."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from visionlora.data.checks.mending import CHANGES, IMAGES, refuse_target
from visionlora.data.segmentation.class_map import IGNORE, ClassMap
from visionlora.data.segmentation.mask_files import write_mask
from visionlora.data.segmentation.mask_reading import MaskReading
from visionlora.data.segmentation.object_masks import class_mask
from visionlora.errors import InputError
from visionlora.files import new_folder

MASKS, CLASSES = "masks", "classes.yaml"


def write_mended_masks(readings: Mapping[str, MaskReading], root: Path, out: Path) -> list[str]:
    """Write images/PART/NAME, masks/PART/NAME.png and classes.yaml with what is left once every fault is mended.

    Masks are written as the values of their classes, whatever they were; what is ignored stays so. What was read
    isn't touched, and ``out`` is whole or absent. Returns the changes, one line each, which changes.txt holds as well.

    Args:
        readings: by part; a single one has no name.
        root: which ``out`` must lie outside of.
        out: an empty or absent folder.

    Raises:
        InputError: ``out`` is no such folder, or nothing is left.
    """
    refuse_target(out)
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{out}: lies in {root}, which is not to be changed; give a folder outside of it")
    if not any(len(reading.data) for reading in readings.values()):
        raise InputError(f"nothing is left to be written to {out}: no image in {root} has a mask that can be used")
    faults = dict.fromkeys(fault for reading in readings.values() for fault in reading.faults if fault.mended)
    changes = [f"{fault} -> {fault.mended}" for fault in faults]
    with new_folder(out) as temporary:
        for part, reading in readings.items():
            values = reading.data.class_map.class_values()
            hidden = _ignored_value(reading.data.class_map)
            colors = [*(reading.data.class_map.colors or [_grey(index) for index in range(len(values))]), (0, 0, 0)]
            for index, image in enumerate(reading.data.images):
                name = image.path.relative_to(reading.place.images)
                target = temporary / IMAGES / part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(image.path, target)
                mask = class_mask(reading.data, index)
                numbers = np.where(mask == IGNORE, len(values), mask)
                write_mask((temporary / MASKS / part / name).with_suffix(".png"), numbers, [*values, hidden], colors)
        class_map = next(iter(readings.values())).data.class_map
        (temporary / CLASSES).write_text(_yaml(class_map), encoding="utf-8")
        text = "".join(f"{line}\n" for line in changes)
        (temporary / CHANGES).write_text(text, encoding="utf-8", errors="backslashreplace")
    return changes


def _grey(index: int) -> tuple[int, int, int]:
    return (index, index, index)


def _ignored_value(class_map: ClassMap) -> int:
    """A value that means ``IGNORE``: one of the data's own, or the first that is no class."""
    ignored = [value for value, index in class_map.values if index == IGNORE]
    taken = {value for value, _ in class_map.values}
    return ignored[0] if ignored else next(value for value in range(255, 65536) if value not in taken)


def _yaml(class_map: ClassMap) -> str:
    colors = class_map.colors or [None] * len(class_map.names)
    entries = [
        {"name": name, "value": value, **({} if color is None else {"color": list(color)})}
        for name, value, color in zip(class_map.names, class_map.class_values(), colors, strict=True)
    ]
    content = {"classes": entries, "ignore": [_ignored_value(class_map)]}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
