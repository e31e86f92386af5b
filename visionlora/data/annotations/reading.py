"""What every reader of annotations does: look at the image files, fit objects to them, collect the faults."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from visionlora.data.annotations import polygons, run_lengths
from visionlora.data.annotations.annotated import AnnotatedImages, Box, LabelledObject, Polygons, RunLengths
from visionlora.data.annotations.exif_frame import turn_object
from visionlora.data.faults import Fault, Spot
from visionlora.data.images import ImageFacts, examine_images

Progress = Callable[[int, int], None]
"""Called with the number of image files looked at so far, and of all."""


@dataclass(frozen=True)
class Options:
    """How to read; the same for all readers.

    Attributes:
        skip_unreadable: an image that can't be decoded is left out with a remark, and is no error.
        on_progress: as images are decoded.
        frames: lists of frames to know the images by; by default those above them.
        crowds: what objects marked as crowds are: ignored, or ``objects`` as any other.
    """

    skip_unreadable: bool = False
    on_progress: Progress | None = None
    crowds: Literal["ignore", "objects"] = "ignore"
    frames: Path | list[Path] | None = None


PLAIN = Options()


@dataclass(frozen=True)
class Reading:
    """A data set as it was read.

    Attributes:
        data: what is left once every fault is mended; without errors that is all there is.
        faults: all of them, in the order found.
        facts: each image file that was looked at.
        root: the folder that all images lie in.
        layout: what it was read as: ``coco``, ``voc`` ...
    """

    data: AnnotatedImages
    faults: list[Fault]
    facts: dict[Path, ImageFacts]
    root: Path
    layout: str = ""


@dataclass(frozen=True)
class Frame:
    """The size in pixels that the annotations of an image mean, and how to turn them into that of ``read_image``."""

    width: int
    height: int
    orientation: int = 1

    def turned(self, things: list[LabelledObject]) -> tuple[LabelledObject, ...]:
        """The objects in the image as ``read_image`` returns it."""
        if self.orientation == 1:
            return tuple(things)
        return tuple(turn_object(thing, self.orientation, self.width, self.height) for thing in things)


def look_at(paths: list[Path], options: Options) -> dict[Path, ImageFacts]:
    """Decode each file once."""
    unique = list(dict.fromkeys(paths))
    tell = options.on_progress
    found = examine_images(unique, None if tell is None else lambda done: tell(done, len(unique)))
    return dict(zip(unique, found, strict=True))


def check_image(facts: ImageFacts, declared: tuple[float, float] | None, spot: Spot, options: Options) -> Frame | None:
    """The frame of an image's annotations, or None, noted, if the image must be left out.

    Args:
        facts: of the file.
        declared: the (width, height) that the annotations were made for, where the file says so.
        spot: of the image's entry.
        options: of the reader.
    """
    name = facts.path.name
    if facts.reason is not None:
        if options.skip_unreadable:
            spot.note("left-out", f"{name}: {facts.reason}", "image left out")
        else:
            spot.note("unreadable", f"{name}: {facts.reason}; replace or remove it", "image left out")
        return None
    upright = Frame(facts.width, facts.height)
    size = f"{facts.width} x {facts.height}"
    if declared is not None and declared != (facts.width, facts.height):
        text = f"annotated as {declared[0]:g} x {declared[1]:g}, but {name}"
        if facts.orientation >= 5 and declared == (facts.height, facts.width):
            spot.note(
                "exif-size",
                f"{text} is shown as {size} (EXIF orientation {facts.orientation}); turn the annotations with it",
                "annotations turned with the image",
            )
            return Frame(facts.height, facts.width, facts.orientation)
        spot.note("wrong-size", f"{text} has {size}; annotate it again, or restore the file", "image left out")
        return None
    if facts.orientation != 1 and (facts.orientation < 5 or facts.width == facts.height or declared is None):
        text = f"{name} has EXIF orientation {facts.orientation}"
        spot.note("exif-unclear", f"{text}; its annotations are taken to mean the image as it is shown")
    return upright


def note_repeats(things: list[LabelledObject], spot: Spot) -> None:
    """A remark for each object that has the class and the box of one before it."""
    seen: dict[tuple[int, Box], str] = {}
    for thing in things:
        key = (thing.label, thing.box)
        if key in seen:
            text = f"{thing.source} has the class and the box of {seen[key]}"
            spot.note("repeated-object", f"{text}; remove one if they are not two objects")
        seen.setdefault(key, thing.source)


def extent_of(mask: Polygons | RunLengths) -> Box:
    """The box around a mask."""
    return polygons.extent(mask) if isinstance(mask, Polygons) else run_lengths.extent(mask)
