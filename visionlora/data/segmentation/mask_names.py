"""Which mask belongs to which image, by name."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from visionlora.data.faults import Fault, Spot
from visionlora.data.folders import images_in, is_hidden, refuse_missing_folder, refuse_unread_formats
from visionlora.data.images import is_image
from visionlora.data.masks_of_images import OF_IMAGES, common_endings
from visionlora.data.usual_names import MASK_ENDINGS
from visionlora.errors import InputError, some

_BESIDE = (*MASK_ENDINGS, "_l")
"""Endings, in lower case, of masks that lie beside their images."""

_WORDS = re.compile(r"(?:^|(?<=[_\- ]))(?:image|img|photo|mask|label|lbl|gt|seg|ann|annotation)s?(?=[_\- ]|\d|$)")
_ENOUGH = 0.8


def has_masks_beside(folder: Path) -> bool:
    """Whether most images directly in a folder have a mask there too, called so: ``a.jpg`` and ``a_mask.png``."""
    if not folder.is_dir():
        return False
    stems = {path.stem for path in folder.iterdir() if is_image(path) and not is_hidden(path.name)}
    masks = [stem for stem in stems if _without_ending(stem) in stems]
    return bool(masks) and len(masks) >= _ENOUGH * (len(stems) - len(masks))


def _without_ending(stem: str) -> str | None:
    return next((stem[: -len(ending)] for ending in _BESIDE if stem.lower().endswith(ending)), None)


def pair(
    images: Path, masks: Path, suffix: str, faults: list[Fault], names: frozenset[str] | None = None
) -> list[tuple[Path, Path]]:
    """Each image with its mask, sorted; who has no partner, or two, is noted and left out.

    Partners have the same path in their folders, but for the ending of the file and for ``suffix``, which the masks'
    names have before it: ``a/1.jpg`` and ``a/1_mask.png`` with ``_mask``. Both may then lie in one folder. Where none
    has, and no suffix is given, what all have in common besides is found, and noted.

    Args:
        images, masks: their folders.
        suffix: of the masks' names.
        faults: for what is found.
        names: of the images that are meant, by their path without the ending; None for all.

    Raises:
        InputError: no such folder, no images, formats that aren't read, or no image at all has a mask.
    """
    for folder in (images, masks):
        refuse_missing_folder(folder)
        refuse_unread_formats(folder)
    image_names, mask_names, called = _candidates(images, masks, suffix, faults)
    if names is not None:
        image_names = {name: path for name, path in image_names.items() if name in names}
        mask_names = {name: path for name, path in mask_names.items() if name in names}
        for name in sorted(names - image_names.keys()):
            text = f"no image '{name}', which is in the list; add it, or correct the list"
            Spot(images, "", faults).note("missing-file", text, "left out")
    if not image_names:
        raise InputError(f"{images}: no images in it; give the folder of the images")
    if not image_names.keys() & mask_names.keys():
        first, other = next(iter(image_names)), some([path.name for path in mask_names.values()], 1) or "nothing"
        raise InputError(
            f"{masks}: no image of {images} has a mask; '{first}{called}' is looked for, and {other} is there; name "
            "masks like their images, or give the ending that they have besides: check-data --suffix, data.mask_suffix"
        )
    for name in sorted(image_names.keys() - mask_names.keys()):
        text = f"no mask '{name}{called}' in {masks}; add it, or remove the image"
        Spot(image_names[name], "", faults).note("no-mask", text, "image left out")
    for name in sorted(mask_names.keys() - image_names.keys()):
        text = f"no image '{name}' in {images}; add it, or remove the mask"
        Spot(mask_names[name], "", faults).note("no-image", text, "mask left out")
    return [(image_names[name], mask_names[name]) for name in sorted(image_names.keys() & mask_names.keys())]


def _candidates(
    images: Path, masks: Path, suffix: str, faults: list[Fault]
) -> tuple[dict[str, Path], dict[str, Path], str]:
    """Images and masks by the name that partners share, and what masks have after it."""
    same = images.resolve() == masks.resolve()
    in_masks, in_images = images_in(masks), images_in(images)
    if same:
        endings = [suffix] if suffix else _endings_beside(in_images)
        if not endings:
            raise InputError(
                f"{images}: is the folder of images and of masks; give two, or the ending of the masks' names"
            )
        suffix = endings[0]
        in_masks = [path for path in in_masks if path.stem.endswith(suffix)]
        in_images = [path for path in in_images if path not in set(in_masks)]
        return _by_name(in_images, images, "", faults), _by_name(in_masks, masks, suffix, faults), suffix
    if masks.is_relative_to(images):
        in_images = [path for path in in_images if path not in set(in_masks)]
    elif images.is_relative_to(masks):
        in_masks = [path for path in in_masks if path not in set(in_images)]
    if suffix:
        chosen = [path for path in in_masks if path.stem.endswith(suffix)]
        mask_names = _by_name(chosen, masks, suffix, faults)
        for end in OF_IMAGES[1:]:
            stripped = (
                _by_name(in_images, images, end, []) if all(path.stem.endswith(end) for path in in_images) else {}
            )
            if stripped.keys() & mask_names.keys():
                return _by_name(in_images, images, end, faults), mask_names, suffix
        return _by_name(in_images, images, "", faults), mask_names, suffix
    image_names, mask_names = _by_name(in_images, images, "", faults), _by_name(in_masks, masks, "", faults)
    if not image_names or not mask_names or image_names.keys() & mask_names.keys():
        return image_names, mask_names, ""
    return _called_otherwise(image_names, mask_names, masks, faults)


def _called_otherwise(
    image_names: dict[str, Path], mask_names: dict[str, Path], masks: Path, faults: list[Fault]
) -> tuple[dict[str, Path], dict[str, Path], str]:
    """By an ending that all masks have, or without words such as image and mask; as they were if neither helps."""
    end, found = common_endings(image_names, mask_names)
    if len(found) > 1:
        raise InputError(
            f"{masks}: each image has masks of several endings ({some(found)}); give the one that is meant: "
            "check-data --suffix, data.mask_suffix"
        )
    if found and (called := found[0]):
        bases = {name.removesuffix(end): path for name, path in image_names.items()}
        chosen = {name.removesuffix(called): path for name, path in mask_names.items() if name.endswith(called)}
        without = f" without {end}" if end else ""
        text = f"masks are called like their images{without}, with '{called}' at the end (data.mask_suffix)"
        Spot(masks, "", faults).note("assumed", text)
        return bases, chosen, called
    plain_images, plain_masks = _plain(image_names), _plain(mask_names)
    shared = plain_images.keys() & plain_masks.keys()
    if (
        len(plain_images) == len(image_names)
        and len(plain_masks) == len(mask_names)
        and len(shared) >= (_ENOUGH * min(len(plain_images), len(plain_masks)))
    ):
        first = min(shared)
        text = (
            f"masks and images are called alike but for a word: {plain_images[first].name}, {plain_masks[first].name}"
        )
        Spot(masks, "", faults).note("assumed", text)
        return plain_images, plain_masks, ""
    return image_names, mask_names, ""


def _endings_beside(paths: Iterable[Path]) -> list[str]:
    """What masks have at the end that lie beside their images, the most frequent first."""
    stems = {path.with_suffix("").as_posix() for path in paths}
    counts: Counter[str] = Counter()
    for stem in stems:
        base = _without_ending(stem)
        if base in stems:
            counts[stem[len(base) :]] += 1
    return [ending for ending, _ in counts.most_common()]


def _plain(names: dict[str, Path]) -> dict[str, Path]:
    return {re.sub(r"[_\- ]+", "_", _WORDS.sub("", name.lower())).strip("_"): path for name, path in names.items()}


def _by_name(paths: list[Path], folder: Path, suffix: str, faults: list[Fault]) -> dict[str, Path]:
    """Files by their path in the folder, without ending and suffix; of two for one name, the first."""
    names: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix().removesuffix(suffix)
        if name in names:
            text = f"{names[name].name} is there for '{name}' as well; remove one"
            Spot(path, "", faults).note("same-name", text, "left out")
        names.setdefault(name, path)
    return names
