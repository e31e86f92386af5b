"""Images with labelled objects: the one form that COCO, Pascal VOC and YOLO files are read into."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels of the image as ``read_image`` returns it (EXIF applied), x1 < x2 and y1 < y2."""


@dataclass(frozen=True)
class Polygons:
    """An object's outline: rings of x1, y1, x2, y2 ... in pixels, each at least three points; their union counts."""

    rings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class RunLengths:
    """An object's mask in COCO's run-length code, compressed: column by column, from background."""

    height: int
    width: int
    counts: bytes


@dataclass(frozen=True)
class LabelledObject:
    """One object in one image.

    Attributes:
        label: index into the data set's classes.
        box: around it.
        mask: its shape, where the file gives one.
        crowd: the box holds many objects of the class: no training target, and no false alarm in evaluation.
        source: where it was read, for messages ("annotation 17", "line 3").
    """

    label: int
    box: Box
    mask: Polygons | RunLengths | None = None
    crowd: bool = False
    source: str = ""

    def plain(self) -> tuple[Any, ...]:
        """What it says, as plain values: all but where it was read. Outlines are bytes: there may be millions."""
        mask: tuple[Any, ...] | None = None
        if isinstance(self.mask, Polygons):
            mask = tuple(array("d", ring).tobytes() for ring in self.mask.rings)
        elif self.mask is not None:
            mask = (self.mask.height, self.mask.width, self.mask.counts)
        return self.label, self.box, self.crowd, mask


@dataclass(frozen=True)
class AnnotatedImage:
    """One image file and its objects; none is valid: a negative.

    Attributes:
        path: the file.
        width, height: in pixels, as ``read_image`` returns it.
        objects: what is in it.
        fields: what else the file says of the image (COCO's other keys: day, camera, frame ...), for splitting.
    """

    path: Path
    width: int
    height: int
    objects: tuple[LabelledObject, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AnnotatedImages:
    """A data set, or a part of one. Classes are counted from 0; a detector's background is no class."""

    images: list[AnnotatedImage]
    classes: list[str]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def has_masks(self) -> bool:
        """Whether every object that trains (no crowd) has a mask, and there is one."""
        masks = [thing.mask for image in self.images for thing in image.objects if not thing.crowd]
        return bool(masks) and all(mask is not None for mask in masks)

    def counts(self) -> list[int]:
        """Objects per class, crowds left out."""
        counts = [0] * len(self.classes)
        for image in self.images:
            for thing in image.objects:
                counts[thing.label] += not thing.crowd
        return counts

    def subset(self, indices: Iterable[int]) -> "AnnotatedImages":
        """These images, in this order; the classes stay."""
        return replace(self, images=[self.images[i] for i in indices])


def among(data: AnnotatedImages, classes: list[str]) -> AnnotatedImages:
    """The same images with their classes in their places among these."""
    images = [replace(image, objects=relabelled(image.objects, data.classes, classes)) for image in data.images]
    return AnnotatedImages(images, classes)


def relabelled(objects: Iterable[LabelledObject], classes: list[str], others: list[str]) -> tuple[LabelledObject, ...]:
    """Objects whose labels count ``classes`` -> the same, counting ``others``, which have all of their names."""
    return tuple(replace(thing, label=others.index(classes[thing.label])) for thing in objects)
