"""Images with mask files: read, and whatever is wrong with them collected."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visionlora.data.annotations.reading import PLAIN, Options
from visionlora.data.faults import Fault, Spot, refuse_errors
from visionlora.data.images import ImageFacts, examine_images
from visionlora.data.segmentation.class_map import IGNORE, ClassMap
from visionlora.data.segmentation.mask_files import MaskFacts, describe_strange, examine_masks, fit_mask, read_mask
from visionlora.data.segmentation.mask_folders import MaskPlace
from visionlora.data.segmentation.mask_names import pair
from visionlora.data.segmentation.segmented import Fitted, SegmentedImage, SegmentedImages

_LEFT_OUT = "image left out"
_SEVERAL = 4
"""Values of no class that an unknown class or two would have; smoothed edges have more."""


@dataclass(frozen=True)
class MaskReading:
    """A data set as it was read.

    Attributes:
        place: where it was read.
        data: what is left once every fault is mended; without errors that is all there is.
        faults: all of them, in the order found.
        facts: each image file that was looked at.
        masks: each mask file that was.
    """

    place: MaskPlace
    data: SegmentedImages
    faults: list[Fault]
    facts: dict[Path, ImageFacts]
    masks: dict[Path, MaskFacts]


def read_masks(
    images: Path, masks: Path, class_map: ClassMap, suffix: str = "", options: Options = PLAIN
) -> SegmentedImages:
    """Read a folder of images and one of masks; anything wrong is refused, and nothing repaired.

    Every image and every mask is decoded once. ``find_mask_folders`` finds the folders of known layouts, and
    ``mask_names.pair`` says which mask belongs to which image.

    Raises:
        InputError: the folders can't be read at all, or there are faults; they are counted, and the first are shown.
    """
    reading = examine_mask_folders(MaskPlace(images, masks), class_map, suffix, options)
    refuse_errors(reading.faults, masks, "Correct the masks, or their list of classes")
    return reading.data


def examine_mask_folders(
    place: MaskPlace, class_map: ClassMap, suffix: str = "", options: Options = PLAIN
) -> MaskReading:
    """As ``read_masks``, with the faults collected instead of refused. InputError where nothing can be read at all."""
    faults: list[Fault] = []
    pairs = pair(place.images, place.masks, suffix, faults, place.names)
    tell, total = options.on_progress, 2 * len(pairs)
    image_facts = examine_images(
        [image for image, _ in pairs], None if tell is None else lambda done: tell(done, total)
    )
    mask_facts = examine_masks(
        [mask for _, mask in pairs],
        class_map,
        None if tell is None else lambda done: tell(len(pairs) + done, total),
    )
    usable = []
    for image, mask in zip(image_facts, mask_facts, strict=True):
        if _check_image(image, options, faults) & _check_mask(mask, image, class_map, faults):
            usable.append(_segmented(image, mask, class_map))
    data = SegmentedImages(usable, class_map)
    # where masks are broken, what they lack says nothing
    if not any(fault.is_error for fault in faults):
        note_classes(data, Spot(place.masks, "", faults), _ignored_values(mask_facts, class_map))
    return MaskReading(
        place,
        data,
        faults,
        {facts.path: facts for facts in image_facts},
        {facts.path: facts for facts in mask_facts},
    )


def _segmented(image: ImageFacts, mask: MaskFacts, class_map: ClassMap) -> SegmentedImage:
    count = len(class_map.names)
    if (mask.width, mask.height) == (image.width, image.height):
        return SegmentedImage(image.path, image.width, image.height, mask.path, mask.counts[:count])
    fitted: Fitted = "turned" if _is_turned(mask, image) else "scaled"
    turned = image.orientation if fitted == "turned" else 1
    classes = fit_mask(read_mask(mask.path, class_map), image.width, image.height, turned)
    pixels = tuple(np.bincount(classes.ravel(), minlength=256)[:count].tolist())
    return SegmentedImage(image.path, image.width, image.height, mask.path, pixels, fitted=fitted)


def note_classes(data: SegmentedImages, spot: Spot, ignored: str = "") -> None:
    """An error if all masks together show less than two classes, else a remark for each class that none shows."""
    counts = dict(zip(data.classes, data.counts(), strict=True))
    there = [name for name, count in counts.items() if count]
    if len(there) < 2:
        found = f"only '{there[0]}' occurs" if there else "no pixel has a class"
        spot.note("one-class", f"{found} in {len(data)} masks{ignored}; correct the masks, or the list of classes")
        return
    for name in [name for name in counts if name not in there]:
        spot.note("unused-class", f"no mask shows '{name}'; it can be neither learnt nor measured")


def _check_image(facts: ImageFacts, options: Options, faults: list[Fault]) -> bool:
    if facts.reason is None:
        return True
    kind = "left-out" if options.skip_unreadable else "unreadable"
    advice = "" if options.skip_unreadable else "; replace or remove it"
    Spot(facts.path, "", faults).note(kind, f"{facts.reason}{advice}", _LEFT_OUT)
    return False


def _check_mask(facts: MaskFacts, image: ImageFacts, class_map: ClassMap, faults: list[Fault]) -> bool:
    """Whether it can be used, once it is mended."""
    spot = Spot(facts.path, "", faults)
    if facts.reason is not None:
        spot.note(facts.kind, facts.reason, _LEFT_OUT)
        return False
    if facts.grey:
        spot.note("assumed", "is grey saved as RGB: its one channel is read as values")
    if facts.rounded:
        share = facts.rounded / (facts.width * facts.height)
        spot.note("rounded", f"{facts.rounded} pixels ({share:.1%}) are rounded to the nearest class")
    if facts.strange:
        kind = "mask-color" if facts.colored else "mask-value"
        known = f"the classes are {len(class_map.names)}, from '{class_map.names[0]}' to '{class_map.names[-1]}'"
        spot.note(kind, f"{describe_strange(facts)} of no class; {known}{_advice(facts, class_map)}", _LEFT_OUT)
    if image.reason is None:
        _check_size(facts, image, spot)
    if not facts.strange and not any(facts.counts[: len(class_map.names)]):
        spot.note("all-ignored", "no pixel has a class, all are ignored; there is nothing to learn from it")
    return not facts.strange


def _advice(facts: MaskFacts, class_map: ClassMap) -> str:
    """What to do about values of no class."""
    if facts.colored:
        add = "give each class its color in the file of classes"
    else:
        value = max((value for value, _ in facts.strange), key=int)
        ignored = IGNORE if facts.counts[IGNORE] and dict(class_map.values).get(IGNORE) == IGNORE else value
        add = f"if {ignored} is one, say so in the file of classes: values: {{{ignored}: {class_map.names[-1]}}}"
    if len(facts.strange) <= _SEVERAL or class_map.nearest:
        return f"; {add}"
    return f"; smoothed edges are rounded with data.round_masks=true (check-data --round-masks); {add}"


def _check_size(facts: MaskFacts, image: ImageFacts, spot: Spot) -> None:
    sizes = f"{facts.width} x {facts.height}, and {image.path.name} {image.width} x {image.height}"
    if (facts.width, facts.height) == (image.width, image.height):
        if image.orientation != 1 and (image.orientation < 5 or image.width == image.height):
            text = f"{image.path.name} has EXIF orientation {image.orientation}"
            spot.note("exif-unclear", f"{text}; its mask is taken to mean the image as it is shown")
    elif _is_turned(facts, image):
        turned = f"as it is shown (EXIF orientation {image.orientation})"
        spot.note("exif-size", f"has {sizes} {turned}; turn the mask with it", "mask turned with the image")
    else:
        scaled = f"mask scaled to {image.width} x {image.height} by the nearest neighbour"
        spot.note("mask-size", f"has {sizes}; save it in the size of the image", scaled)


def _is_turned(facts: MaskFacts, image: ImageFacts) -> bool:
    return image.orientation >= 5 and (facts.height, facts.width) == (image.width, image.height)


def _ignored_values(masks: Iterable[MaskFacts], class_map: ClassMap) -> str:
    """Says that much is ignored, where it is: a mask of 0 and 255 may mean a class by 255."""
    ignored = sum(facts.counts[IGNORE] for facts in masks)
    if not ignored:
        return ""
    values = [value for value, index in class_map.values if index == IGNORE]
    named = f"value{'s' * (len(values) > 1)} {', '.join(map(str, values))}"
    advice = f"say so in the file of classes: values: {{{values[-1] if values else IGNORE}: {class_map.names[-1]}}}"
    return f" ({ignored} pixels are ignored: {named}; if that is a class, {advice})"
