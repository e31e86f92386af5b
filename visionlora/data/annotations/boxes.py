"""One box, checked against its image."""

import math
from collections.abc import Sequence

from visionlora.data.annotations.annotated import Box
from visionlora.data.faults import Spot, shown

NOISE = 0.01
"""Pixels: less is how a number was written. A side shorter than this has no length."""

TOLERANCE = 1.0
"""Pixels beyond the image that tools leave by rounding, or by counting from 0 or from 1: clipped, with a remark."""

DROPPED = "annotation dropped"


def numbers(values: object, what: str, spot: Spot, mended: str = DROPPED) -> list[float] | None:
    """A list of finite numbers, or None, noted as a fault. Text and booleans are no numbers."""
    if not isinstance(values, (list, tuple)):
        spot.note("malformed", f"{what} is {shown(values)}; it should be a list of numbers", mended)
        return None
    wrong = [value for value in values if isinstance(value, bool) or not isinstance(value, (int, float))]
    if wrong:
        spot.note("not-a-number", f"{what} holds {shown(wrong[0])}, which is not a number; write it plainly", mended)
        return None
    try:
        plain = [float(value) for value in values]
    except OverflowError:
        plain = [math.inf]
    if not all(math.isfinite(value) for value in plain):
        spot.note("not-finite", f"{what} holds NaN or an infinite value; annotate it again", mended)
        return None
    return plain


def check_box(corners: Sequence[float], width: float, height: float, spot: Spot, text: str = "") -> Box | None:
    """(x1, y1, x2, y2) in pixels -> the part inside the image, or None for a box that is none.

    More than ``TOLERANCE`` beyond the image is an error even though the part inside is returned; less is a
    remark, and less than ``NOISE`` is nothing. ``text`` is how messages call the box where its file has other numbers.
    """
    x1, y1, x2, y2 = corners
    text = text or f"the box {span((x1, y1, x2, y2))}"
    if x2 < x1 or y2 < y1:
        spot.note("negative-size", f"{text} ends before it begins; correct it", DROPPED)
        return None
    if x2 - x1 < NOISE or y2 - y1 < NOISE:
        spot.note("zero-area", f"{text} has no area; draw it again or remove it", DROPPED)
        return None
    box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    image = f"the image of {width:g} x {height:g}"
    if box[2] - box[0] < NOISE or box[3] - box[1] < NOISE:
        spot.note("box-outside", f"{text} lies outside {image}; correct or remove it", DROPPED)
        return None
    note_overhang(max(-x1, -y1, x2 - width, y2 - height), "box-partly-outside", text, image, spot)
    return box


def note_overhang(beyond: float, kind: str, what: str, image: str, spot: Spot) -> None:
    """A fault of this kind, a remark, or nothing, by how many pixels lie ``beyond`` the image."""
    if beyond > TOLERANCE:
        spot.note(kind, f"{what} reaches {beyond:.4g} px beyond {image}; correct it", "clipped to the image")
    elif beyond > NOISE:
        spot.note("overhang", f"{what} reaches {beyond:.2g} px beyond {image}", "clipped to the image")


def check_agreement(box: Box, extent: Box, spot: Spot) -> bool:
    """Whether box and mask show one thing: intersection over union of the box and the mask's extent >= 0.5.

    Less is noted as a fault.
    """
    width = min(box[2], extent[2]) - max(box[0], extent[0])
    height = min(box[3], extent[3]) - max(box[1], extent[1])
    shared = max(width, 0.0) * max(height, 0.0)
    overlap = shared / (_area(box) + _area(extent) - shared)
    if overlap >= 0.5:
        return True
    text = f"the box ({span(box)}) is not around the mask ({span(extent)}); correct one of them"
    spot.note("mask-box", text, DROPPED)
    return False


def span(box: Box) -> str:
    """For messages."""
    x1, y1, x2, y2 = box
    return f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g}"


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
