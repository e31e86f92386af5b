"""When folders are class folders, and when they are something else that must never be read as classes."""

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from visionlora.data.folders import PARTS, files_in, refuse_missing_folder, subfolders
from visionlora.data.images import UnreadableError, is_image, opened
from visionlora.data.other_layouts import refuse_what_is_no_class_folders
from visionlora.errors import InputError, some

_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "img_dir", "pngimages", "leftimg8bit", "input"}
_OTHERS = {
    *("masks", "mask", "annotations", "annotation", "anns", "ann", "ann_dir", "labels", "label", "segmentationclass"),
    *("segmentationobject", "imagesets", "gtfine", "gtcoarse", "gt", "ground_truth", "groundtruth", "bboxes"),
    *("trimaps", "masks_machine", "masks_human", "xml", "xmls", "json", "jsons", "segmentations", "targets"),
}
"""Names of folders, in lower case, that hold images, and what belongs to them. One of them may be a class: a mask."""

_SIDECARS = {".xml", ".json", ".txt"}
_MASK_ENDINGS = ("_mask", "-mask", " mask", "_seg", "_label", "_gt", "_segmentation")
_FEW, _SAMPLED = 6, 3
"""More folders than this are no images and masks; of each pair of folders so many files are opened."""

_FLAT, _RICH = 0.8, 0.5
"""Share of the pixels that have one of the eight most frequent colours: in a mask at least, in a photo at most."""

_ADVICE = (
    "give the file of the annotations (check-data FILE --root IMAGES), of masks the file of their classes "
    "(check-data FOLDER --classes FILE), or put the images into one folder per class"
)


def class_folders(root: Path) -> dict[str, Path]:
    """The folders directly in ``root`` by name, hidden ones left out.

    Raises:
        InputError: no such folder, no folders in it, nothing but train, val and the like, or folders that hold
            something else than the images of a class each: images and their masks, or annotations.
    """
    refuse_missing_folder(root)
    folders = {path.name: path for path in subfolders(root)}
    if not folders:
        loose = sum(is_image(path) for path in root.iterdir())
        raise InputError(
            f"{root}: no class folders; put the images into one folder per class, {root.name}/<class>/<image>"
            f" ({loose} image{'s' * (loose != 1)} directly in it)"
        )
    if {name.lower() for name in folders} <= set(PARTS):
        raise InputError(
            f"{root}: holds {some(folders)}, which are parts of a data set and no classes; "
            f"give one of them, as in {root / next(iter(folders))}"
        )
    refuse_what_is_no_class_folders(root)
    if reason := _something_else(folders):
        raise InputError(f"{root}: holds {some(folders)}, which are no class folders: {reason}; {_ADVICE}")
    return folders


def part_folders(root: Path) -> dict[str, Path]:
    """Part -> folder, training first; the root itself, without a name, if it has no parts. InputError without a root.

    Parts are folders called train, val, valid, test and the like. Others beside them are no parts, unless there is
    none to train on: classes may be called so too.
    """
    refuse_missing_folder(root)
    folders = {path.name: path for path in subfolders(root)}
    parts = {name: path for name, path in folders.items() if name.lower() in PARTS}
    has_training = any(name.lower().startswith("train") for name in parts)
    if not parts or (len(parts) < len(folders) and not has_training):
        return {"": root}
    return dict(sorted(parts.items(), key=lambda item: PARTS.index(item[0].lower())))


def _something_else(folders: dict[str, Path]) -> str:
    """Why these are no class folders; empty if they may be."""
    if known := _belong_together(folders):
        return f"{some(known)} hold images and what belongs to them"
    images: dict[str, list[Path]] = {}
    for name, folder in folders.items():
        inner = [path.name for path in subfolders(folder)]
        if parts := [other for other in inner if other.lower() in PARTS]:
            return f"{name} has parts of a data set in it ({some(parts)}), so that {folder} may be what is meant"
        if others := _belong_together(inner):
            return f"{name} has {some(others)} in it"
        files = files_in(folder)
        images[name] = [path for path in files if is_image(path)]
        labels = [path for path in files if path.suffix.lower() in (*_SIDECARS, ".csv", ".yaml", ".npy", ".mat")]
        if not images[name] and (name.lower() in _OTHERS or len(labels) > 1):
            kinds = sorted({path.suffix.lower() for path in labels})
            return f"{name} has no image in it{f', but files of {some(kinds)}' if kinds else ''}"
        stems = {path.with_suffix("") for path in images[name]}
        beside = [path for path in files if path.suffix.lower() in _SIDECARS and path.with_suffix("") in stems]
        if beside and 2 * len(beside) >= len(stems):
            return f"beside {len(beside)} of {len(stems)} images in {name} lie annotations ({beside[0].name})"
        if masks := _masks_beside(images[name]):
            return f"{len(masks)} of the files in {name} are masks of others ({masks[0].name}); keep them elsewhere"
    if 1 < len(folders) <= _FEW:
        for one, other in combinations(folders, 2):
            for photos, flat in ((one, other), (other, one)):
                if _are_masks(images[photos], folders[photos], images[flat], folders[flat]):
                    return f"{flat} looks like masks of the images in {photos}, with the same names and flat colours"
    return ""


def _belong_together(names: Iterable[str]) -> list[str]:
    """Names of images and of what belongs to them, if there are both."""
    images = [name for name in names if name.lower() in _IMAGES]
    others = [name for name in names if name.lower() in _OTHERS]
    return [*images, *others] if images and others else []


def _masks_beside(images: list[Path]) -> list[Path]:
    stems = {path.with_suffix("").as_posix() for path in images}
    found = []
    for path in images:
        for ending in _MASK_ENDINGS:
            if path.stem.lower().endswith(ending) and path.with_suffix("").as_posix()[: -len(ending)] in stems:
                found.append(path)
    return found if 3 * len(found) > len(images) else []


def _are_masks(images: list[Path], image_folder: Path, masks: list[Path], mask_folder: Path) -> bool:
    """Whether most files of both have the same names, and each mask that is looked at is flat, unlike its image."""
    photos = {path.relative_to(image_folder).with_suffix(""): path for path in images}
    flat = {path.relative_to(mask_folder).with_suffix(""): path for path in masks}
    shared = sorted(photos.keys() & flat.keys())
    if not shared or 2 * len(shared) < max(len(photos), len(flat)):
        return False
    looked_at = shared[:: -(-len(shared) // _SAMPLED)]
    return all(_flatness(flat[name]) >= _FLAT and 0 < _flatness(photos[name]) <= _RICH for name in looked_at)


def _flatness(path: Path) -> float:
    """Share of the pixels that have one of the eight most frequent colours; 0 if the file can't be read."""
    try:
        with opened(path) as image:
            width, height = image.size
            left, top = max(0, (width - 256) // 2), max(0, (height - 256) // 2)
            part: Image.Image = image.crop((left, top, min(width, left + 256), min(height, top + 256)))
            pixels = np.asarray(part.convert("RGB")).reshape(-1, 3).astype(np.int64)
    except UnreadableError:
        return 0.0
    _, counts = np.unique(pixels @ (1, 256, 65536), return_counts=True)
    return float(np.sort(counts)[-8:].sum() / len(pixels))
