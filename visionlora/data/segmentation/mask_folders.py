"""Where images and masks lie."""

from dataclasses import dataclass, replace
from pathlib import Path

from visionlora.data.folders import PARTS, find_part, holds_image, refuse_missing_folder, subfolders
from visionlora.data.images import is_image
from visionlora.data.masks_of_images import find_masks_of_images
from visionlora.data.segmentation.mask_names import has_masks_beside
from visionlora.data.usual_names import AFTER_IMAGES, AFTER_IMAGES_LABELS, IMAGE_FOLDERS, LABEL_FOLDERS, MASK_FOLDERS
from visionlora.errors import InputError, did_you_mean, some

_MASKS = (*MASK_FOLDERS, *LABEL_FOLDERS)
_AFTER = (*AFTER_IMAGES, *AFTER_IMAGES_LABELS)
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
    with masks beside the images; without parts ``images`` and ``masks``, one folder of both, or any two folders of
    which one holds masks of the other's images by name and look. Parts are also the lists of Pascal VOC's
    ``ImageSets/Segmentation``; without a part, what they name is everything.

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
    inside = [path for child in subfolders(root) for path in (child, *subfolders(child)) if find_mask_places(path)]
    if inside:
        meant = " or ".join(map(str, inside[:2]))
        raise InputError(f"{root}: no folders of images and masks directly in it; give {meant}")
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
    for folder in _named(root, IMAGE_FOLDERS):
        names |= {path.name for path in subfolders(folder)}
    known = [name for name in names if name.lower() in PARTS]
    found = {name: place for name in known if (place := _of_part(root, name)) is not None}
    if not found and (pair := _pair(_named(root, IMAGE_FOLDERS), _named(root, _MASKS))) is not None:
        found = {name: place for name, place in _lists(pair, root).items() if name.lower() in PARTS}
    if not found:  # Supervisely's data sets in a project
        places = {path.name: _pair(_named(path, IMAGE_FOLDERS), _named(path, _MASKS)) for path in subfolders(root)}
        found = {name: _of_all_lists(place, root / name) for name, place in places.items() if place is not None}
    order = {name: index for index, name in enumerate(PARTS)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0].lower(), len(order)), item[0])))


def find_given_folders(images: Path, masks: Path, part: str | None = None) -> MaskPlace:
    """As ``find_mask_folders``, where both folders are known: a part is one of ``given_parts``, or a folder in both."""
    if part is None:
        return _of_all_lists(MaskPlace(images, masks), images.absolute().parent)
    parts = given_parts(images, masks)
    name = part if part in parts else find_part(part, parts) if part in ("train", "val") else None
    return MaskPlace(images / part, masks / part) if name is None else parts[name]


def given_parts(images: Path, masks: Path) -> dict[str, MaskPlace]:
    """Part -> its folders, where both are known: a folder in both, or a list of Pascal VOC's beside them."""
    if not images.is_dir() or not masks.is_dir():
        return {}
    in_masks = {path.name for path in subfolders(masks)}
    both = [path.name for path in subfolders(images) if path.name in in_masks]
    return {name: MaskPlace(images / name, masks / name) for name in both} or listed_parts(images, masks)


def listed_parts(images: Path, masks: Path) -> dict[str, MaskPlace]:
    """Those of Pascal VOC's lists, if they lie beside the folders of images and masks."""
    home = images.absolute().parent
    parts = _lists(MaskPlace(images, masks), home) if masks.absolute().parent == home else {}
    return {name: place for name, place in parts.items() if name.lower() in PARTS}


def find_mask_places(root: Path) -> dict[str, MaskPlace]:
    """The parts, or everything as one without a name; empty if there are no images and masks in a known layout."""
    parts = find_mask_parts(root)
    if parts:
        return parts
    place = _without_parts(root)
    return {} if place is None else {"": place}


def _without_parts(root: Path) -> MaskPlace | None:
    place = _pair(_named(root, IMAGE_FOLDERS), _named(root, _MASKS))
    if place is not None:
        return _of_all_lists(place, root)
    return MaskPlace(root, root) if has_masks_beside(root) else _by_look(root)


def _by_look(folder: Path) -> MaskPlace | None:
    """Two folders in it with other names, one of which holds masks of the other's images."""
    found = find_masks_of_images(subfolders(folder)) if folder.is_dir() else None
    return None if found is None else MaskPlace(found.images, found.masks)


def _of_part(root: Path, part: str) -> MaskPlace | None:
    """Where images and masks of a part may be, the likeliest first."""
    images, masks = _named(root, IMAGE_FOLDERS), _named(root, _MASKS)
    inside = _pair([path / part for path in images], [path / part for path in masks])
    inside = inside or _pair(_named(root / part, IMAGE_FOLDERS), _named(root / part, _MASKS))
    if inside is not None:
        return inside
    for ending in ("", "_images", "_imgs", "_img"):
        place = _pair([root / f"{part}{ending}"], [root / f"{part}{after}" for after in _AFTER])
        if place is not None:
            return place
    return MaskPlace(root / part, root / part) if has_masks_beside(root / part) else _by_look(root / part)


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


def _of_all_lists(place: MaskPlace, root: Path) -> MaskPlace:
    """With the images of Pascal VOC's lists alone, where there are some: most of its images have no mask."""
    lists = _lists(place, root)
    parts = [listed for name, listed in lists.items() if name.lower() in PARTS] or list(lists.values())
    return replace(place, names=frozenset().union(*(part.names or () for part in parts))) if parts else place


def _lists(place: MaskPlace, root: Path) -> dict[str, MaskPlace]:
    """Pascal VOC's: a file for each part, with a name in each line."""
    parts = {}
    for path in sorted(root.joinpath(*_LISTS).glob("*.txt")):
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        names = [Path(line.strip()) for line in lines if line.strip()]
        stems = [name.with_suffix("") if is_image(name) else name for name in names]
        parts[path.stem] = replace(place, names=frozenset(name.as_posix() for name in stems))
    return parts
