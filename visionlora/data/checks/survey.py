"""A data set as ``check-data`` sees it, whatever its layout: parts, files and faults."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.choosing import values_of
from visionlora.data.annotations.joining import PART
from visionlora.data.annotations.layouts import examine_annotations
from visionlora.data.annotations.reading import Options, Reading
from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.faults import Fault, Spot
from visionlora.data.folders import images_in
from visionlora.data.images import ImageFacts
from visionlora.data.segmentation.mask_reading import MaskReading
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.errors import some


@dataclass(frozen=True)
class Part:
    """A part of a data set: training, validation, a day, a camera; and how many pixels its mask files ignore."""

    name: str
    data: AnnotatedImages | LabelledImages | SegmentedImages
    ignored_pixels: int = 0

    @property
    def paths(self) -> list[Path]:
        """The image files."""
        if isinstance(self.data, LabelledImages):
            return self.data.paths
        return [image.path for image in self.data.images]


@dataclass(frozen=True)
class Survey:
    """Everything that was found.

    Attributes:
        layout: a key of ``recognising.NAMES``, ``folders`` or ``masks``.
        parts: with the images that can be read.
        facts: each image file that was looked at.
        faults: all of them.
        reading: of annotated images.
        masks: of each part of images with mask files.
    """

    layout: str
    parts: list[Part]
    facts: dict[Path, ImageFacts]
    faults: list[Fault]
    reading: Reading | None = None
    masks: dict[str, MaskReading] = field(default_factory=dict)


def survey_annotations(paths: Sequence[Path], root: Path | None, by: str | None, options: Options) -> Survey:
    """Read annotated images; several paths are parts of one data set, and ``by`` is a field that makes parts.

    Raises:
        InputError: a path can't be read at all, or no image has the field.
    """
    reading = examine_annotations(paths, root, options=options)
    faults = list(reading.faults)
    _note_unlisted(reading.root, reading.facts, faults)
    return Survey(reading.layout, _parts(reading.data, by), reading.facts, faults, reading)


def _parts(data: AnnotatedImages, by: str | None) -> list[Part]:
    """One for each value of the field; a single one without a name if there is no such field."""
    if by is None:
        if not any(PART in image.fields for image in data.images):
            return [Part("", data)]
        by = PART
    groups: dict[str, list[int]] = {value: [] for value in values_of(data, by)}
    for index, image in enumerate(data.images):
        groups.setdefault(str(image.fields.get(by, f"no {by}")), []).append(index)
    return [Part(value, data.subset(indices)) for value, indices in groups.items()]


def _note_unlisted(root: Path, facts: dict[Path, ImageFacts], faults: list[Fault]) -> None:
    """A remark for images in the folder that no file mentions."""
    # Only where a path isn't there as it stands: to resolve 100,000 links takes seconds.
    unlisted = [path for path in images_in(root) if path not in facts]
    if unlisted:
        listed = {path.resolve() for path in facts}
        unlisted = [path for path in unlisted if path.resolve() not in listed]
    if unlisted:
        text = f"{len(unlisted)} image files aren't annotated ({some(path.name for path in unlisted)})"
        Spot(root, "", faults).note("no-annotation", f"{text}; they are not read")
