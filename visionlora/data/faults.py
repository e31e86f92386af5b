"""What is wrong with a data set, one fault at a time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionlora.errors import InputError, on_one_line, shown, some

_TOLD = 3
"""Of faults that were left out, so many lines are shown."""

ERRORS = {
    "box-outside": "box outside the image",
    "box-partly-outside": "box partly outside the image",
    "broken-file": "file can't be read as what it should be",
    "duplicate-annotation-id": "annotation id used twice",
    "duplicate-file": "image file listed twice",
    "duplicate-image-id": "image id used twice",
    "elsewhere": "file is in another place",
    "empty": "nothing there",
    "exif-size": "annotated before EXIF rotation",
    "in-two-parts": "same image file in two parts",
    "malformed": "key missing, or value of the wrong kind",
    "lossy-mask": "mask in a lossy format",
    "mask-box": "mask and box disagree",
    "mask-color": "mask colour that is no class",
    "mask-outside": "mask outside the image",
    "mask-size": "mask of another size than its image",
    "mask-value": "mask value that is no class",
    "missing-file": "file is missing",
    "negative-size": "negative size",
    "no-colors": "mask of colours, and classes without",
    "no-image": "annotation without image",
    "no-mask": "image without a mask",
    "not-a-number": "not a number",
    "not-finite": "NaN or infinite",
    "not-normalised": "YOLO value not in 0 to 1",
    "one-class": "masks show a single class",
    "one-label": "a single class",
    "outside-folder": "path leaves the data folder",
    "polygon-odd": "polygon with an odd number of coordinates",
    "polygon-points": "polygon with less than three points",
    "rle-counts": "run lengths don't add up",
    "rle-size": "run lengths for another image size",
    "same-name": "two files for the same name",
    "several-labels": "several labels, or none, where there is one",
    "unknown-class": "unknown class",
    "unread-format": "image format that isn't read",
    "unreadable": "image can't be decoded",
    "wrong-columns": "wrong number of columns",
    "wrong-size": "annotated size isn't the file's",
    "zero-area": "zero area",
}
"""Kind -> what it is. Training refuses a data set that has one of these."""

REMARKS = {
    "all-ignored": "mask without a pixel of any class",
    "assumed": "written otherwise, and read as it is meant",
    "camera-lacks": "a camera lacks a class, or night",
    "classes-alike": "classes of nearly the same name",
    "corners": "boxes that may be corners",
    "crowd": "crowd: ignored in training and evaluation",
    "difficult": "marked difficult: ignored in training and evaluation",
    "exif-unclear": "EXIF orientation that the annotated size doesn't show",
    "crowd-masks": "many masks in pixels that are crowds",
    "leak": "near-duplicates in two parts",
    "frames": "frames of recordings",
    "left-out": "image can't be decoded, left out as asked",
    "missing-part": "part to test on that isn't there",
    "no-annotation": "image files that aren't annotated",
    "no-label-file": "image without a label file: a negative",
    "no-shape": "no area, or no object: not read",
    "no-validation": "nothing to validate on",
    "no-size": "image size not annotated",
    "other-path": "path as written isn't there, another is meant",
    "overhang": "up to one pixel beyond the image, clipped",
    "repeated-object": "same object twice",
    "rotated": "rotated boxes",
    "rounded": "mask values rounded to the nearest class",
    "same-part": "two parts with the same images",
    "unlabelled": "image that nobody has labelled yet",
    "unused-class": "class that nothing shows",
}
"""Kind -> what it is. Training takes these as they are."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, or worth knowing.

    Attributes:
        kind: a key of ``ERRORS`` or ``REMARKS``.
        file: where it was found.
        where: in that file ("annotation 17", "line 3"), or empty.
        message: one line: what is wrong, and what to do.
        mended: what the mended copy of ``check-data --fix`` does about it; empty: nothing.
    """

    kind: str
    file: str
    where: str
    message: str
    mended: str = ""

    @property
    def is_error(self) -> bool:
        """Whether training refuses it; otherwise it is a remark."""
        return self.kind not in REMARKS

    @property
    def title(self) -> str:
        """What its kind means, in a few words."""
        return ERRORS[self.kind] if self.is_error else REMARKS[self.kind]

    def __str__(self) -> str:
        return f"{self.file}{', ' * bool(self.where)}{self.where}: {self.message}"


@dataclass(frozen=True)
class Spot:
    """A place in a file, and the list that its faults are noted in."""

    file: Path
    where: str
    found: list[Fault]

    def note(self, kind: str, message: str, mended: str = "") -> None:
        """Add a fault of this place."""
        self.found.append(Fault(kind, str(self.file), self.where, message, mended))


def count_by_title(faults: Iterable[Fault]) -> dict[str, int]:
    """How many of each kind, the most frequent first."""
    return dict(Counter(fault.title for fault in faults).most_common())


def refuse_errors(faults: Iterable[Fault], path: Path, advice: str | None = None) -> None:
    """Raises InputError, with the kinds and the first few in full, if there is a fault that is no remark.

    ``advice`` is how to see all; without it, check-data on the path.
    """
    errors = [fault for fault in faults if fault.is_error]
    if not errors:
        return
    kinds = ", ".join(f"{count} x {title}" for title, count in count_by_title(errors).items())
    first = "; ".join(str(fault) for fault in errors[:3])
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    advice = advice or f"Run visionlora check-data {path} to see all, and with --fix FOLDER to write a mended copy"
    raise InputError(f"{path}: {len(errors)} fault{'s' * (len(errors) > 1)} ({kinds}): {first}{more}. {advice}")


def describe_left_out(faults: Iterable[Fault]) -> list[str]:
    """A line for each fault that is no remark, with what becomes of it where faults are left out."""
    return [f"{fault} -> {fault.mended or 'left out'}" for fault in faults if fault.is_error]


def tell_left_out(lines: Sequence[str], where: str) -> str:
    """The first of ``describe_left_out``'s lines, how many there are, and where all are; empty for none."""
    if not lines:
        return ""
    number = f"{len(lines)} fault{'s' * (len(lines) > 1)} of the annotations mended or left out ({where}):"
    return "\n".join([number, *(f"  {on_one_line(line)}" for line in lines[:_TOLD])])


def listed(values: Iterable[object], limit: int = 5) -> str:
    """The first few values from a file, for a message."""
    return some((shown(value) for value in values), limit)
