"""A data set as `check-data` sees it, whatever its layout: parts, files and faults."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.choosing import values_of
from visionlora.data.annotations.layouts import examine_annotations, find_layout
from visionlora.data.annotations.reading import Options, Reading
from visionlora.data.classification.dataset import LabelledImages
from visionlora.data.faults import Fault, Spot
from visionlora.data.folders import images_in
from visionlora.data.images import ImageFacts
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.errors import some

PART = "part"
"""The field that says to which part an image belongs, unless another is asked for."""


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
        layout: ``coco``, ``voc``, ``yolo``, ``folders`` or ``masks``.
        parts: with the images that can be read.
        facts: each image file that was looked at.
        faults: all of them.
        readings: of annotated images, one for each path that was given.
    """

    layout: str
    parts: list[Part]
    facts: dict[Path, ImageFacts]
    faults: list[Fault]
    readings: tuple[Reading, ...] = ()


def survey_annotations(paths: Sequence[Path], root: Path | None, by: str | None, options: Options) -> Survey:
    """Read annotated images; several paths are parts of one data set, and `by` is a field that makes parts.

    Raises:
        InputError: a path can't be read at all, or no image has the field.
    """
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    parts: list[Part] = []
    facts: dict[Path, ImageFacts] = {}
    faults: list[Fault] = []
    readings = []
    for name, path in zip(names, paths, strict=True):
        reading = examine_annotations(path, root, options=options)
        inner = _parts(reading.data, by)
        if len(paths) > 1:
            inner = [Part(f"{name}/{part.name}" if part.name else name, part.data) for part in inner]
        _note_shared(parts, inner, path, faults)
        parts += inner
        facts |= reading.facts
        faults += reading.faults
        readings.append(reading)
    _note_unlisted({reading.root for reading in readings}, facts, faults)
    return Survey(find_layout(paths[0])[0], parts, facts, faults, tuple(readings))


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


def _note_shared(before: list[Part], parts: list[Part], path: Path, faults: list[Fault]) -> None:
    """An error for each image file that another path has listed."""
    seen = {file.resolve(): part.name for part in before for file in part.paths}
    for part in parts:
        for file in part.paths:
            if (first := seen.get(file.resolve())) is not None:
                text = f"{file.name} is in {first} and in {part.name}; keep it in one"
                Spot(path, "", faults).note("in-two-parts", text)


def _note_unlisted(roots: set[Path], facts: dict[Path, ImageFacts], faults: list[Fault]) -> None:
    """A remark for each folder with images that no file mentions."""
    listed = {path.resolve() for path in facts}
    for root in sorted(roots):
        unlisted = [path for path in images_in(root) if path.resolve() not in listed]
        if unlisted:
            text = f"{len(unlisted)} image files aren't annotated ({some(path.name for path in unlisted)})"
            Spot(root, "", faults).note("no-annotation", f"{text}; they are not read")
