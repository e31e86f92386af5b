"""What ``check-data`` found, as plain data."""

from dataclasses import asdict, dataclass, field
from typing import Any

from visionlora.data.faults import Fault

QUANTILES = (0, 5, 25, 50, 75, 95, 100)
"""In per cent."""


@dataclass(frozen=True)
class ClassCount:
    """Objects of a class (crowds left out), images that show one, and pixels of mask files.

    Of classified images there are as many as objects, and masks in files have no objects.
    """

    objects: int
    images: int
    pixels: int = 0


@dataclass(frozen=True)
class BoxSizes:
    """Of all objects but crowds, at the images' original size.

    Attributes:
        small, medium, large: how many, by COCO's areas of the box: below 32 x 32, below 96 x 96, and above.
        width, height: quantiles in pixels, by ``QUANTILES``.
        share: quantiles of the box's area over the image's.
    """

    small: int
    medium: int
    large: int
    width: dict[int, float]
    height: dict[int, float]
    share: dict[int, float]


@dataclass(frozen=True)
class PartReport:
    """One part of the data set. ``negatives`` are images without any object; crowds count as objects there.

    ``pixels`` and ``ignored_pixels`` are those of mask files that have a class, and that have none.
    """

    name: str
    images: int
    negatives: int
    objects: int
    crowds: int
    masks: int
    classes: dict[str, ClassCount]
    boxes: BoxSizes | None
    pixels: int = 0
    ignored_pixels: int = 0


@dataclass(frozen=True)
class CameraReport:
    """The images of one camera: how many, of how many days, in which light (empty: unknown), and the classes that none
    of them shows."""

    name: str
    images: int
    days: int
    lights: dict[str, int]
    lacks: list[str]


@dataclass(frozen=True)
class Burst:
    """Images of one part that come to each other in small steps."""

    part: str
    images: list[str]


@dataclass(frozen=True)
class Leak:
    """Images of ``second`` that nearly equal one of ``first``: how many, and the nearest pairs."""

    first: str
    second: str
    images: int
    nearest: list[tuple[str, str]]


@dataclass(frozen=True)
class DataReport:
    """A data set in numbers, and everything that is wrong with it.

    Attributes:
        paths: what was checked.
        layout: ``coco``, ``voc``, ``yolo``, ``folders`` or ``masks``.
        parts: one without a name if there are none.
        image_sizes: "width x height" -> number of images, the most frequent first.
        faults: errors and remarks.
        bursts: near-duplicates within a part, the largest first.
        leaks: near-duplicates across parts.
        cameras: what each has and lacks; none where cameras aren't known.
        changes: what the mended copy has otherwise; None if none was asked for.
    """

    paths: list[str]
    layout: str
    parts: list[PartReport]
    image_sizes: dict[str, int]
    faults: list[Fault]
    bursts: list[Burst]
    leaks: list[Leak]
    cameras: list[CameraReport] = field(default_factory=list)
    changes: list[str] | None = None

    @property
    def errors(self) -> list[Fault]:
        """The faults that training refuses."""
        return [fault for fault in self.faults if fault.is_error]

    @property
    def remarks(self) -> list[Fault]:
        """The others."""
        return [fault for fault in self.faults if not fault.is_error]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; each fault has its severity, ``error`` or ``remark``."""
        faults = [{"severity": "error" if fault.is_error else "remark", **asdict(fault)} for fault in self.faults]
        return {**asdict(self), "faults": faults}
