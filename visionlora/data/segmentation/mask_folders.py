"""Where images and masks lie."""

from dataclasses import dataclass
from pathlib import Path

from visionlora.data.folders import PARTS, find_part, holds_image, refuse_missing_folder, subfolders
from visionlora.data.images import is_image
from visionlora.data.segmentation.mask_names import has_masks_beside
from visionlora.errors import InputError, did_you_mean, some

_IMAGES = ("images", "imgs", "img", "image", "jpegimages", "img_dir", "leftimg8bit", "pngimages", "input", "photos")
_MASKS = (
    *("masks", "annotations", "labels", "mask", "label", "segmentationclass", "ann_dir", "gtfine", "segmentations"),
    *("gt", "ground_truth", "groundtruth", "targets", "masks_machine", "trimaps"),
)
_AFTER = ("annot", "_masks", "_mask", "_labels", "_label", "_annotations", "_gt", "_mask_images")
"""What the name of a folder of masks has after that of its images: trainannot, train_labels."""

_LISTS = ("ImageSets", "Segmentation")


@dataclass(frozen=True)
class MaskPlace:
    """The folders of images and of masks, which may be one; ``names`` are the images that are meant, None for all."""

    images: Path
    masks: Path
    names: frozenset[str] | None = None


def find_mask_folders(root: Path, part: str | None = None) -> MaskPlace:
    """The folders of images and masks of a part, or of everything if ``part`` is None.

    Known are, with ``masks``, ``annotations``, ``labels`` and more names of the kind for masks: ``images/train`` and
    ``masks/train``, ``train/images`` and ``train/masks``, ``train`` and ``trainannot`` or ``train_labels``, ``train``
    with masks beside the images; without parts ``images`` and ``masks``, or one folder of both. Parts are also the
    lists of Pascal VOC's ``ImageSets/Segmentation``.

    Raises:
        InputError: no such folder, or it is laid out otherwise.
    """
    refuse_missing_folder(root)
    if part is None:
        place = _without_parts(root)
        if place is not None:
            return place
    else:
        parts = find_mask_parts(root)
        name = part if part in parts else find_part(part, parts) if part in ("train", "val") else None
        if name is not None:
            return parts[name]
        if (place := _of_part(root, part)) is not None:
            return place
        if parts:
            raise InputError(f"{root}: no part {part} with masks{did_you_mean(part, parts)}; there are {some(parts)}")
    there = sorted(path.name for path in subfolders(root))
    wanted = (
        "images with masks" if part is None else f"images/{part} with masks/{part}, {part}/images with {part}/masks"
    )
    raise InputError(
        f"{root}: no folders of images and masks ({wanted}, or other names for them); it holds "
        f"{some(there, 8) or 'no folders'}; any two folders are given as check-data IMAGES --masks MASKS, or as "
        "data.images and data.masks"
    )


def has_part(root: Path, part: str) -> bool:
    """Whether ``find_mask_folders`` would find a part of that name."""
    parts = find_mask_parts(root)
    return part in parts or find_part(part, parts) is not None if part in ("train", "val") else part in parts


def find_mask_parts(root: Path) -> dict[str, MaskPlace]:
    """Part -> its folders, training first; empty if there are no parts."""
    names = {path.name for path in subfolders(root)}
    for folder in _named(root, _IMAGES):
        names |= {path.name for path in subfolders(folder)}
    known = [name for name in names if name.lower() in PARTS]
    found = {name: place for name in known if (place := _of_part(root, name)) is not None}
    if not found:
        found = _lists(root)
    if not found:  # Supervisely's data sets in a project
        places = {path.name: _pair(_named(path, _IMAGES), _named(path, _MASKS)) for path in subfolders(root)}
        found = {name: place for name, place in places.items() if place is not None}
    order = {name: index for index, name in enumerate(PARTS)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0].lower(), len(order)), item[0])))


def find_mask_places(root: Path) -> dict[str, MaskPlace]:
    """The parts, or everything as one without a name; empty if there are no images and masks in a known layout."""
    parts = find_mask_parts(root)
    if parts:
        return parts
    place = _without_parts(root)
    return {} if place is None else {"": place}


def _without_parts(root: Path) -> MaskPlace | None:
    place = _pair(_named(root, _IMAGES), _named(root, _MASKS))
    return MaskPlace(root, root) if place is None and has_masks_beside(root) else place


def _of_part(root: Path, part: str) -> MaskPlace | None:
    """Where images and masks of a part may be, the likeliest first."""
    images, masks = _named(root, _IMAGES), _named(root, _MASKS)
    inside = _pair([path / part for path in images], [path / part for path in masks])
    inside = inside or _pair(_named(root / part, _IMAGES), _named(root / part, _MASKS))
    if inside is not None:
        return inside
    for ending in ("", "_images", "_imgs", "_img"):
        place = _pair([root / f"{part}{ending}"], [root / f"{part}{after}" for after in _AFTER])
        if place is not None:
            return place
    return MaskPlace(root / part, root / part) if has_masks_beside(root / part) else None


def _pair(images: list[Path], masks: list[Path]) -> MaskPlace | None:
    """The first of each that holds images."""
    for one in images:
        if one.is_dir() and holds_image(one):
            for other in masks:
                if other.is_dir() and holds_image(other):
                    return MaskPlace(one, other)
    return None


def _named(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The folders of these names, in any case, in the order of the names."""
    if not root.is_dir():
        return []
    there = {path.name.lower(): path for path in subfolders(root)}
    found = []
    for name in names:
        if (folder := there.get(name)) is not None:
            if not any(is_image(path) for path in folder.iterdir()):  # annotations/trimaps
                found += [path for path in subfolders(folder) if path.name.lower() in names]
            found.append(folder)
    return found


def _lists(root: Path) -> dict[str, MaskPlace]:
    """Pascal VOC's: a file for each part, with a name in each line."""
    folder = root.joinpath(*_LISTS)
    place = _pair(_named(root, _IMAGES), _named(root, _MASKS))
    if place is None or not folder.is_dir():
        return {}
    parts = {}
    for path in sorted(folder.glob("*.txt")):
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        names = [Path(line.strip()) for line in lines if line.strip()]
        if path.stem.lower() in PARTS:
            stems = [name.with_suffix("") if is_image(name) else name for name in names]
            parts[path.stem] = MaskPlace(place.images, place.masks, frozenset(name.as_posix() for name in stems))
    return parts
