"""Images with a class for every pixel: the one form that mask files and labelled objects are read into."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from visionlora.data.annotations.annotated import LabelledObject
from visionlora.data.segmentation.class_map import IGNORE, ClassMap

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
