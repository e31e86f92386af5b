"""Boxes, masks and their labels drawn into an image, at sizes that suit it."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from visionlora.tasks.label_layout import place_labels

Color = tuple[int, int, int]

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

_PALETTE: list[Color] = [
    (255, 195, 0),
    (0, 174, 255),
    (255, 92, 64),
    (64, 220, 120),
    (214, 96, 255),
    (0, 222, 220),
    (255, 128, 190),
    (170, 220, 40),
    (110, 120, 255),
    (255, 150, 50),
    (255, 238, 170),
    (0, 255, 0),
    (153, 102, 68),
    (85, 34, 255),
    (119, 153, 68),
    (170, 34, 68),
    (68, 85, 153),
    (153, 17, 136),
    (68, 136, 153),
    (204, 170, 255),
]
_GOLDEN = 0.618034
"""Steps of this share of the circle keep any number of hues apart."""


@dataclass(frozen=True)
class Mark:
    """One object to draw.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image; what lies outside is cut off.
        color: of the frame, the mask and the label.
        text: of the label; empty for none.
        mask: (H, W) bool, drawn translucent.
        thin: a frame of half the width, over the others.
    """

    box: Sequence[float]
    color: Color
    text: str = ""
    mask: np.ndarray | None = None
    thin: bool = False


def class_color(label: int) -> Color:
    """The colour of a class by its index: bright, and unlike those of the others."""
    if label < len(_PALETTE):
        return _PALETTE[label]
    number = label - len(_PALETTE)
    saturation, value = ((0.75, 0.95), (0.45, 1.0), (0.9, 0.8))[number % 3]
    red, green, blue = colorsys.hsv_to_rgb((number * _GOLDEN + 0.75) % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_marks(image: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """Draw objects, the first on top and with the first choice of a place for its label.

    Args:
        image: (H, W, 3) uint8 RGB, left as it is.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    pixels = _with_masks(image, marks)
    canvas = Image.fromarray(pixels)
    draw = ImageDraw.Draw(canvas)
    line = max(2, round(max(width, height) / 480))
    boxes = np.array([_pixels_of(mark.box, width, height) for mark in marks]).reshape(-1, 4)
    for i in sorted(range(len(marks)), key=lambda i: (marks[i].thin, -i)):
        _frame(draw, boxes[i].tolist(), marks[i], line)
    _draw_labels(draw, marks, boxes, width, height)
    return np.asarray(canvas).copy()


def _with_masks(image: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """A copy with the masks over it: their colour at two fifths, and whole along their border."""
    pixels = image.copy()
    for mark in reversed(marks):
        if mark.mask is not None and mark.mask.any():
            rows, columns = np.flatnonzero(mark.mask.any(axis=1)), np.flatnonzero(mark.mask.any(axis=0))
            part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            mask = np.pad(mark.mask[part], 1)
            inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
            mask = mask[1:-1, 1:-1]
            view = pixels[part]
            view[mask] = (0.6 * view[mask] + 0.4 * np.array(mark.color)).astype(np.uint8)
            view[mask & ~inner] = mark.color
    return pixels


def _pixels_of(box: Sequence[float], width: int, height: int) -> list[int]:
    """The first and last pixels of a box, x1, y1, x2, y2, inside the image."""
    x1, y1, x2, y2 = box
    left, top = min(max(round(x1), 0), width - 1), min(max(round(y1), 0), height - 1)
    return [left, top, min(max(round(x2) - 1, left), width - 1), min(max(round(y2) - 1, top), height - 1)]


def _frame(draw: ImageDraw.ImageDraw, box: Sequence[int], mark: Mark, line: int) -> None:
    """A frame, with a dark edge so that it shows on any background; a thin one has none, so as not to hide others."""
    x1, y1, x2, y2 = box
    if not mark.thin:
        red, green, blue = (value // 4 for value in mark.color)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(red, green, blue), width=line + 2)
    draw.rectangle((x1, y1, x2, y2), outline=mark.color, width=line // 2 if mark.thin else line)


def _draw_labels(draw: ImageDraw.ImageDraw, marks: Sequence[Mark], boxes: np.ndarray, width: int, height: int) -> None:
    font = letters(max(11, round(max(width, height) / 70)))
    ascent, descent = font.getmetrics()
    pad = round(font.size / 4)
    label_height = ascent + descent + pad // 2
    shown = [i for i, mark in enumerate(marks) if mark.text]
    texts = [_shortened(marks[i].text, font, width - 2 * pad) for i in shown]
    if label_height > height or not texts:
        return
    sizes = np.array([(min(width, round(font.getlength(text)) + 2 * pad), label_height) for text in texts])
    edges = boxes[shown] + (0, 0, 1, 1)
    places = place_labels(sizes, edges, width, height).round().astype(int).tolist()
    for i, place in zip(shown, places, strict=True):
        _leader(draw, place, boxes[i].tolist(), marks[i].color)
    for i, text, (x1, y1, x2, y2) in reversed(list(zip(shown, texts, places, strict=True))):
        draw.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius=pad, fill=marks[i].color)
        luminance = np.dot(marks[i].color, (0.299, 0.587, 0.114))
        ink = BLACK if luminance > 130 else WHITE
        draw.text((x1 + pad, y1 + pad // 4), text, font=font, fill=ink)


def _leader(draw: ImageDraw.ImageDraw, label: Sequence[int], box: Sequence[int], color: Color) -> None:
    """A line from a label to its box; it has no length where they touch."""
    x, y = (_nearest(label[axis], label[axis + 2], box[axis], box[axis + 2]) for axis in (0, 1))
    draw.line((x[0], y[0], x[1], y[1]), fill=color, width=2)


def _nearest(low: int, high: int, other_low: int, other_high: int) -> tuple[int, int]:
    """The points of two intervals that are nearest to each other."""
    if high < other_low:
        return high, other_low
    if other_high < low:
        return low, other_high
    middle = (max(low, other_low) + min(high, other_high)) // 2
    return middle, middle


def _shortened(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """As much of the text as there is room for; its last word, the score, stays longest."""
    if font.getlength(text) <= room:
        return text
    name, _, score = text.rpartition(" ")
    for length in range(len(name) - 1, 0, -1):
        if font.getlength(f"{name[:length]}… {score}") <= room:
            return f"{name[:length]}… {score}"
    return score if font.getlength(score) <= room else ""


@lru_cache(maxsize=8)
def letters(size: int) -> ImageFont.FreeTypeFont:
    """The font that pictures are labelled with; ``size`` in pixels."""
    # Pillow's own font lacks most accents and all but Latin letters.
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
