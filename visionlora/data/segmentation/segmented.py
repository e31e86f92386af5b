"""Images with a class for every pixel: the one form that mask files and labelled objects are read into."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from visionlora.data.annotations.annotated import LabelledObject
from visionlora.data.segmentation.class_map import IGNORE, ClassMap, Color

Fitted = Literal["", "scaled", "turned"]


@dataclass(frozen=True)
class SegmentedImage:
    """One image file and where the classes of its pixels come from.

    Attributes:
        path: the file.
        width, height: in pixels, as ``read_image`` returns it.
        mask: a mask file, or objects to draw, the later over the earlier ones.
        pixels: how many there are of each class.
        fields: what else is known of the image (day, camera, frame ...), for splitting.
        fitted: what is done to a mask file of another size than the image, where faults are mended: it is scaled, or
            turned as EXIF's orientation turns the image.
    """

    path: Path
    width: int
    height: int
    mask: Path | tuple[LabelledObject, ...]
    pixels: tuple[int, ...]
    fields: dict[str, Any] = field(default_factory=dict)
    fitted: Fitted = ""


@dataclass(frozen=True)
class SegmentedImages:
    """A data set, or a part of one.

    Attributes:
        images: the files.
        class_map: the classes, and what mask files write for them.
        ground: class of the pixels that no object covers, where masks are drawn; ``IGNORE`` for none.
    """

    images: list[SegmentedImage]
    class_map: ClassMap
    ground: int = IGNORE

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> list[str]:
        """Names in the order of a model's outputs."""
        return list(self.class_map.names)

    def counts(self) -> list[int]:
        """Pixels per class."""
        return [sum(image.pixels[index] for image in self.images) for index in range(len(self.class_map.names))]

    def subset(self, indices: Iterable[int]) -> "SegmentedImages":
        """These images, in this order; the classes stay."""
        return replace(self, images=[self.images[i] for i in indices])


def among(data: SegmentedImages, classes: list[str], colors: tuple[Color, ...] | None = None) -> SegmentedImages:
    """The same images with their classes in their places among these; what has none there is ignored."""
    places = [classes.index(name) if name in classes else IGNORE for name in data.classes]

    def place(label: int) -> int:
        return label if label == IGNORE else places[label]

    def moved(image: SegmentedImage) -> SegmentedImage:
        pixels = [0] * len(classes)
        for label, count in zip(places, image.pixels, strict=True):
            if label != IGNORE:
                pixels[label] += count
        mask = image.mask
        if not isinstance(mask, Path):
            mask = tuple(replace(thing, label=place(thing.label)) for thing in mask)
        return replace(image, mask=mask, pixels=tuple(pixels))

    given = data.class_map
    values = tuple((value, place(label)) for value, label in given.values)
    codes = tuple((code, place(label)) for code, label in given.codes)
    class_map = replace(given, names=tuple(classes), colors=colors, values=values, codes=codes)
    return SegmentedImages([moved(image) for image in data.images], class_map, place(data.ground))
