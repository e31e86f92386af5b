"""Images with mask files as ``check-data`` sees them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from visionlora.data.annotations.reading import Options
from visionlora.data.checks.survey import Part, Survey
from visionlora.data.faults import Fault
from visionlora.data.images import ImageFacts
from visionlora.data.segmentation.class_files import find_class_file, read_classes
from visionlora.data.segmentation.class_map import IGNORE
from visionlora.data.segmentation.mask_files import raw_values
from visionlora.data.segmentation.mask_folders import (
    MaskPlace,
    find_given_folders,
    find_mask_folders,
    find_mask_places,
    listed_parts,
)
from visionlora.data.segmentation.mask_names import pair
from visionlora.data.segmentation.mask_reading import examine_mask_folders
from visionlora.errors import InputError, some

_LOOKED_AT = 5
"""Masks that say which values there are, where no file names the classes."""


@dataclass(frozen=True)
class MaskFiles:
    """Where masks are, and what they mean.

    Attributes:
        classes: the file that names the classes; None for the one that lies with them.
        masks: their folder; None where they lie beside the images in a known layout, perhaps in parts.
        suffix: what a mask's name has between its image's name and the ending.
        nearest: values of no class are rounded to the nearest one.
    """

    classes: Path | None = None
    masks: Path | None = None
    suffix: str = ""
    nearest: bool = False


def survey_masks(root: Path, files: MaskFiles, options: Options) -> Survey:
    """Read a folder of images and its masks, or a folder of parts that have both.

    Raises:
        InputError: the folders or the file of classes can't be read at all.
    """
    places = _places(root, files.masks)
    class_map = read_classes(_class_file(root, files, places), files.nearest)
    parts: list[Part] = []
    facts: dict[Path, ImageFacts] = {}
    faults: list[Fault] = []
    readings = {}
    for name, place in places.items():
        reading = examine_mask_folders(place, class_map, files.suffix, options)
        ignored = sum(found.counts[IGNORE] for found in reading.masks.values())
        parts.append(Part(name, reading.data, ignored))
        facts |= reading.facts
        readings[name] = reading
        # To validate on, one class is enough.
        training = not name or name.lower().startswith("train")
        faults += [fault for fault in reading.faults if training or fault.kind != "one-class"]
    return Survey("masks", parts, facts, list(dict.fromkeys(faults)), masks=readings)


def _places(root: Path, masks: Path | None) -> dict[str, MaskPlace]:
    """Part -> images and masks; a single one without a name if there are no parts."""
    if masks is not None:
        return listed_parts(root, masks) or {"": find_given_folders(root, masks)}
    return find_mask_places(root) or {"": find_mask_folders(root)}  # which says what is looked for


def _class_file(root: Path, files: MaskFiles, places: dict[str, MaskPlace]) -> Path:
    if files.classes is not None:
        return files.classes
    if (found := find_class_file(root)) is not None:
        return found
    place = next(iter(places.values()))
    shown = f"{place.images.name} with {place.masks.name}" if place.images != place.masks else "masks beside the images"
    raise InputError(
        f"{root}: holds images and masks ({shown}), and no file that names their classes; {_values(place, root)}, or "
        "give another file as --classes (data.classes in training)"
    )


def _values(place: MaskPlace, root: Path) -> str:
    """What the first masks hold, and how to name it, for a message."""
    paths = [mask for _, mask in pair(place.images, place.masks, "", [])]
    counts: Counter[str] = Counter()
    for path in paths[:: max(1, len(paths) // _LOOKED_AT)][:_LOOKED_AT]:
        counts.update(raw_values(path))
    held = some([value for value, _ in counts.most_common()], 8) or "nothing that can be read"
    form = "classes: [background, person], and values: {255: person} where values aren't 0, 1, 2"
    if any(value.startswith("(") for value in counts):
        form = "classes: [{name: road, color: [128, 64, 128]}], with each class's colour"
    return f"the first masks hold {held}; write {root / 'classes.yaml'} as in {form}"
