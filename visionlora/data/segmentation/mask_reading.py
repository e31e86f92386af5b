"""Images with mask files: read, and whatever is wrong with them collected."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from visionlora.data.annotations.reading import PLAIN, Options
from visionlora.data.faults import Fault, Spot, refuse_errors
from visionlora.data.images import ImageFacts, examine_images
from visionlora.data.segmentation.class_map import IGNORE, ClassMap
from visionlora.data.segmentation.mask_files import MaskFacts, describe_strange, examine_masks
from visionlora.data.segmentation.mask_folders import pair
from visionlora.data.segmentation.segmented import SegmentedImage, SegmentedImages

_LEFT_OUT = "image left out"


@dataclass(frozen=True)
class MaskReading:
    """A data set as it was read.

    Attributes:
        data: the images with which nothing is wrong.
        faults: all of them, in the order found.
        facts: each image file that was looked at.
        masks: each mask file that was.
    """

    data: SegmentedImages
    faults: list[Fault]
    facts: dict[Path, ImageFacts]
    masks: dict[Path, MaskFacts]


def read_masks(
    images: Path, masks: Path, class_map: ClassMap, suffix: str = "", options: Options = PLAIN
) -> SegmentedImages:
    """Read a folder of images and one of masks; anything wrong is refused, and nothing repaired.

    Every image and every mask is decoded once. `find_mask_folders` finds the folders of known layouts, and `pair`
    says which mask belongs to which image.

    Raises:
        InputError: the folders can't be read at all, or there are faults; they are counted, and the first are shown.
    """
    reading = examine_mask_folders(images, masks, class_map, suffix, options)
    refuse_errors(reading.faults, masks, "Correct the masks, or their list of classes")
    return reading.data


def examine_mask_folders(
    images: Path, masks: Path, class_map: ClassMap, suffix: str = "", options: Options = PLAIN
) -> MaskReading:
    """As `read_masks`, with the faults collected instead of refused. InputError where nothing can be read at all."""
    faults: list[Fault] = []
    pairs = pair(images, masks, suffix, faults)
    tell, total = options.on_progress, 2 * len(pairs)
    image_facts = examine_images(
        [image for image, _ in pairs], None if tell is None else lambda done: tell(done, total)
    )
    mask_facts = examine_masks(
        [mask for _, mask in pairs],
        class_map,
        None if tell is None else lambda done: tell(len(pairs) + done, total),
    )
    sound = []
    for image, mask in zip(image_facts, mask_facts, strict=True):
        if _check_image(image, options, faults) & _check_mask(mask, image, class_map, faults):
            pixels = mask.counts[: len(class_map.names)]
            sound.append(SegmentedImage(image.path, image.width, image.height, mask.path, pixels))
    data = SegmentedImages(sound, class_map)
    # where masks are broken, what they lack says nothing
    if not any(fault.is_error for fault in faults):
        note_classes(data, Spot(masks, "", faults), _ignored_values(mask_facts, class_map))
    return MaskReading(
        data,
        faults,
        {facts.path: facts for facts in image_facts},
        {facts.path: facts for facts in mask_facts},
    )


def note_classes(data: SegmentedImages, spot: Spot, ignored: str = "") -> None:
    """An error if all masks together show less than two classes, else a remark for each class that none shows."""
    counts = dict(zip(data.classes, data.counts(), strict=True))
    there = [name for name, count in counts.items() if count]
    if len(there) < 2:
        found = f"only '{there[0]}' occurs" if there else "no pixel has a class"
        spot.note("one-class", f"{found} in {len(data)} masks{ignored}; correct the masks, or the list of classes")
        return
    for name in counts.keys() - set(there):
        spot.note("unused-class", f"no mask shows '{name}'; it can be neither learnt nor measured")


def _check_image(facts: ImageFacts, options: Options, faults: list[Fault]) -> bool:
    if facts.reason is None:
        return True
    kind = "left-out" if options.skip_unreadable else "unreadable"
    advice = "" if options.skip_unreadable else "; replace or remove it"
    Spot(facts.path, "", faults).note(kind, f"{facts.reason}{advice}", _LEFT_OUT)
    return False


def _check_mask(facts: MaskFacts, image: ImageFacts, class_map: ClassMap, faults: list[Fault]) -> bool:
    spot = Spot(facts.path, "", faults)
    if facts.reason is not None:
        spot.note(facts.kind, facts.reason, _LEFT_OUT)
        return False
    if facts.strange:
        kind = "mask-color" if facts.colored else "mask-value"
        known = f"the classes are {len(class_map.names)}, from '{class_map.names[0]}' to '{class_map.names[-1]}'"
        spot.note(kind, f"{describe_strange(facts)} of no class; {known}", _LEFT_OUT)
    fits = image.reason is not None or _check_size(facts, image, spot)
    if not facts.strange and not any(facts.counts[: len(class_map.names)]):
        spot.note("all-ignored", "no pixel has a class, all are ignored; there is nothing to learn from it")
    return fits and not facts.strange


def _check_size(facts: MaskFacts, image: ImageFacts, spot: Spot) -> bool:
    sizes = f"{facts.width} x {facts.height}, and {image.path.name} {image.width} x {image.height}"
    if (facts.width, facts.height) == (image.width, image.height):
        if image.orientation != 1 and (image.orientation < 5 or image.width == image.height):
            text = f"{image.path.name} has EXIF orientation {image.orientation}"
            spot.note("exif-unclear", f"{text}; its mask is taken to mean the image as it is shown")
        return True
    if image.orientation >= 5 and (facts.height, facts.width) == (image.width, image.height):
        turned = f"as it is shown (EXIF orientation {image.orientation})"
        spot.note("exif-size", f"has {sizes} {turned}; turn the mask with it", _LEFT_OUT)
    else:
        spot.note("mask-size", f"has {sizes}; save it in the size of the image", _LEFT_OUT)
    return False


def _ignored_values(masks: Iterable[MaskFacts], class_map: ClassMap) -> str:
    """Says that much is ignored, where it is: a mask of 0 and 255 may mean a class by 255."""
    ignored = sum(facts.counts[IGNORE] for facts in masks)
    if not ignored:
        return ""
    values = _describe_ignored(class_map)
    return f" ({ignored} pixels are ignored: {values}; if that is a class, give it that value)"


def _describe_ignored(class_map: ClassMap) -> str:
    """The values that are ignored, for a message."""
    values = [str(value) for value, index in class_map.values if index == IGNORE]
    return f"value{'s' * (len(values) > 1)} {', '.join(values)}"
