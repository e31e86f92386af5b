"""A class for every pixel from labelled objects: COCO's polygons and run lengths, drawn."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from visionlora.data.annotations.annotated import AnnotatedImages, LabelledObject
from visionlora.data.annotations.masks import patch_through, refuse_missing_masks
from visionlora.data.images import orientation_of
from visionlora.data.segmentation.class_map import IGNORE, make_class_map
from visionlora.data.segmentation.mask_files import fit_mask, read_mask
from visionlora.data.segmentation.segmented import SegmentedImage, SegmentedImages
from visionlora.errors import InputError

_UNMOVED = np.eye(3)[:2]


def segment_objects(data: AnnotatedImages, background: str | None = "background") -> SegmentedImages:
    """The same images with a class for every pixel; every mask is drawn once, to count.

    Later objects lie over earlier ones. ``background`` becomes the first class, of all that no object covers; with
    None that is ignored. A crowd's mask counts as any other; a crowd that has only a box makes the box ignored,
    since nobody knows which of its pixels are meant.

    Raises:
        InputError: an object has no mask, ``background`` is a class, or less than two classes or more than 254.
    """
    refuse_missing_masks(data)
    if background in data.classes:
        raise InputError(f"there is a class '{background}' already; give the background another name, or none")
    first = 0 if background is None else 1
    names = data.classes if background is None else [background, *data.classes]
    class_map, ground = make_class_map(names), IGNORE if background is None else 0

    def drawn(index: int) -> SegmentedImage:
        image = data.images[index]
        objects = tuple(_relabelled(thing, first) for thing in image.objects)
        mask = draw_objects(objects, image.width, image.height, ground)
        pixels = tuple(np.bincount(mask.ravel(), minlength=256)[: len(names)].tolist())
        return SegmentedImage(image.path, image.width, image.height, objects, pixels, image.fields)

    with ThreadPoolExecutor(4) as pool:
        return SegmentedImages(list(pool.map(drawn, range(len(data)))), class_map, ground)


def draw_objects(objects: Sequence[LabelledObject], width: int, height: int, ground: int) -> np.ndarray:
    """(height, width) uint8 of the objects' labels, ``ground`` where there is none; later ones over earlier ones."""
    mask = np.full((height, width), ground, np.uint8)
    for thing in objects:
        if thing.mask is None:
            left, top, right, bottom = np.round(thing.box).astype(int).tolist()
            mask[top:bottom, left:right] = IGNORE
        else:
            pixels, x, y = patch_through(thing.mask, _UNMOVED, width, height)
            mask[y : y + pixels.shape[0], x : x + pixels.shape[1]][pixels > 0] = thing.label
    return mask


def class_mask(data: SegmentedImages, index: int) -> np.ndarray:
    """(H, W) uint8: class of each pixel of an image, or ``IGNORE``, from its file or its objects.

    Raises:
        InputError: the mask can't be read, or isn't of the image's size any more.
    """
    image = data.images[index]
    if not isinstance(image.mask, Path):
        return draw_objects(image.mask, image.width, image.height, data.ground)
    mask = read_mask(image.mask, data.class_map)
    if image.fitted:
        return fit_mask(mask, image.width, image.height, orientation_of(image.path) if image.fitted == "turned" else 1)
    if mask.shape != (image.height, image.width):
        height, width = mask.shape
        raise InputError(
            f"{image.mask}: has {width} x {height} pixels, and its image {image.width} x {image.height}; "
            "save it in the size of the image"
        )
    return mask


def _relabelled(thing: LabelledObject, first: int) -> LabelledObject:
    return LabelledObject(thing.label + first, thing.box, thing.mask, thing.crowd, thing.source)
