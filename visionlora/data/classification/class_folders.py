"""When folders are class folders, and when they are something else that must never be read as classes."""

from collections.abc import Iterable
from pathlib import Path

from visionlora.data.folders import PARTS, files_in, refuse_missing_folder, subfolders
from visionlora.data.frame_manifest import holds_frames
from visionlora.data.images import is_image
from visionlora.data.masks_of_images import find_masks_of_images
from visionlora.data.other_layouts import refuse_what_is_no_class_folders
from visionlora.data.usual_names import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    MASK_ENDINGS,
    MASK_FOLDERS,
    OTHER_MASK_FOLDERS,
)
from visionlora.errors import InputError, some

_OTHERS = {*MASK_FOLDERS, *OTHER_MASK_FOLDERS, *LABEL_FOLDERS}
"""Of what belongs to images. One of them may be a class: a mask."""

_SIDECARS = {".xml", ".json", ".txt"}

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
    if holds_frames(root):
        raise InputError(
            f"{root}: holds frames of recordings, and no labels; annotate them, or sort them into one folder per class "
            "elsewhere"
        )
    refuse_what_is_no_class_folders(root)
    if reason := _something_else(folders):
        raise InputError(f"{root}: holds {some(folders)}, which are no class folders: {reason}; {_ADVICE}")
    if (found := find_masks_of_images(list(folders.values()))) is not None:
        ending = found.ending
        raise InputError(
            f"{root}: holds {some(folders)}, which are no class folders: {found}; look at them with visionlora "
            f"check-data {root} --classes FILE{f' --suffix {ending}' if ending else ''}, and train a segmenter: "
            f"data.root={root} data.classes=FILE{f' data.mask_suffix={ending}' if ending else ''}"
        )
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
    return ""


def _belong_together(names: Iterable[str]) -> list[str]:
    """Names of images and of what belongs to them, if there are both."""
    images = [name for name in names if name.lower() in IMAGE_FOLDERS]
    others = [name for name in names if name.lower() in _OTHERS]
    return [*images, *others] if images and others else []


def _masks_beside(images: list[Path]) -> list[Path]:
    stems = {path.with_suffix("").as_posix() for path in images}
    found = []
    for path in images:
        for ending in MASK_ENDINGS:
            if path.stem.lower().endswith(ending) and path.with_suffix("").as_posix()[: -len(ending)] in stems:
                found.append(path)
    return found if 3 * len(found) > len(images) else []
