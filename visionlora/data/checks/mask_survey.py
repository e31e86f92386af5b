"""Images with mask files as `check-data` sees them."""

from dataclasses import dataclass
from pathlib import Path

from visionlora.data.annotations.reading import Options
from visionlora.data.checks.survey import Part, Survey
from visionlora.data.faults import Fault
from visionlora.data.folders import PARTS
from visionlora.data.images import ImageFacts
from visionlora.data.segmentation.class_map import IGNORE, read_class_map
from visionlora.data.segmentation.mask_folders import find_mask_folders, has_part
from visionlora.data.segmentation.mask_reading import examine_mask_folders


@dataclass(frozen=True)
class MaskFiles:
    """Where masks are, and what they mean.

    Attributes:
        classes: the YAML file that names the classes.
        masks: their folder; None where they lie beside the images in a known layout, perhaps in parts.
        suffix: what their names have before the ending besides.
    """

    classes: Path
    masks: Path | None = None
    suffix: str = ""


def survey_masks(root: Path, files: MaskFiles, options: Options) -> Survey:
    """Read a folder of images and its masks, or a folder of parts that have both.

    Raises:
        InputError: the folders or the file of classes can't be read at all.
    """
    class_map = read_class_map(files.classes)
    parts: list[Part] = []
    facts: dict[Path, ImageFacts] = {}
    faults: list[Fault] = []
    for name, (images, masks) in _folders(root, files.masks).items():
        reading = examine_mask_folders(images, masks, class_map, files.suffix, options)
        ignored = sum(found.counts[IGNORE] for found in reading.masks.values())
        parts.append(Part(name, reading.data, ignored))
        facts |= reading.facts
        # To validate on, one class is enough.
        training = not name or name.lower().startswith("train")
        faults += [fault for fault in reading.faults if training or fault.kind != "one-class"]
    return Survey("masks", parts, facts, faults)


def _folders(root: Path, masks: Path | None) -> dict[str, tuple[Path, Path]]:
    """Part -> images and masks; a single one without a name if there are no parts."""
    if masks is not None:
        return {"": (root, masks)}
    parts = {part: find_mask_folders(root, part) for part in PARTS if has_part(root, part)}
    return parts or {"": find_mask_folders(root)}
