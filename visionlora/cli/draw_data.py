"""``visionlora check-data --draw``: annotations as pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from visionlora.data.annotations.annotated import AnnotatedImage
from visionlora.data.annotations.masks import rasterise
from visionlora.data.checks.survey import Survey
from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.images import read_image
from visionlora.data.segmentation.object_masks import class_mask
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.errors import InputError
from visionlora.files import new_folder
from visionlora.tasks.drawing import BLACK, Mark, class_color, draw_marks
from visionlora.tasks.segmentation.figures import class_colors, overlay

_SMALLEST = 480
"""Pixels of a picture's longer side: smaller images are magnified, so that labels can be read."""

_UNMOVED = np.eye(3)[:2]


def draw_data(survey: Survey, count: int, folder: Path) -> int:
    """Write up to ``count`` pictures, spread over the data set: boxes, masks, classes over pixels, or labels.

    The folder has one for each part that has a name, and is whole or absent. Returns how many there are.

    Raises:
        InputError: there is no image.
    """
    places = [(part, index) for part in survey.parts for index in range(len(part.data))]
    if not places:
        raise InputError("--draw: there is no image to be drawn")
    count = min(count, len(places))
    chosen = [places[number * len(places) // count] for number in range(count)]
    with new_folder(folder) as temporary:
        for number, (part, index) in enumerate(chosen, start=1):
            name = f"{number:0{len(str(count))}}_{part.paths[index].stem}.png"
            target = temporary / part.name.replace("/", "_") / name
            target.parent.mkdir(exist_ok=True)
            Image.fromarray(_drawn(part.data, index)).save(target)
    return count


def _drawn(data: object, index: int) -> np.ndarray:
    """(H, W, 3) uint8."""
    if isinstance(data, LabelledImages):
        image, _ = _magnified(read_image(data.paths[index]))
        labels = data.labels[index]
        return draw_marks(image, [_caption(image, data.classes[label], class_color(label)) for label in labels])
    if isinstance(data, SegmentedImages):
        return _segmented(data, index)
    classes, annotated = data.classes, data.images[index]  # type: ignore[attr-defined]
    image, scale = _magnified(read_image(annotated.path))
    return draw_marks(image, list(_objects(annotated, classes, scale)))


def _objects(image: AnnotatedImage, classes: list[str], scale: int) -> Iterator[Mark]:
    for thing in image.objects:
        mask = None
        if thing.mask is not None:
            small = rasterise(thing.mask, _UNMOVED, image.width, image.height) > 0
            mask = small.repeat(scale, axis=0).repeat(scale, axis=1)
        text = f"{classes[thing.label]}{' (crowd)' if thing.crowd else ''}"
        yield Mark([scale * value for value in thing.box], class_color(thing.label), text, mask, thin=thing.crowd)


def _segmented(data: SegmentedImages, index: int) -> np.ndarray:
    """Classes over their image, and each one's name in the middle of its largest width."""
    image, scale = _magnified(read_image(data.images[index].path))
    mask = class_mask(data, index).repeat(scale, axis=0).repeat(scale, axis=1)
    colors = class_colors(data.class_map)
    marks = []
    for label in np.unique(mask[mask < len(colors)]).tolist():
        row = int((mask == label).sum(axis=1).argmax())
        columns = np.flatnonzero(mask[row] == label)
        x = int(columns[len(columns) // 2])
        color = colors[label] if colors[label] != BLACK else (90, 90, 90)
        marks.append(Mark((x, row, x + 1, row + 1), color, data.classes[label], thin=True))
    return draw_marks(overlay(image, mask, colors), marks)


def _caption(image: np.ndarray, text: str, color: tuple[int, int, int]) -> Mark:
    return Mark((0, 0, image.shape[1], image.shape[0]), color, text, thin=True)


def _magnified(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Each pixel as a square of so many."""
    scale = max(1, -(-_SMALLEST // max(image.shape[:2])))
    return image.repeat(scale, axis=0).repeat(scale, axis=1), scale
