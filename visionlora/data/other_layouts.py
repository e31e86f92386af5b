"""Folders that are no class folders, whatever they are: none of them is ever read as classes."""

from pathlib import Path

from visionlora.data.annotations.recognising import NAMES, recognise
from visionlora.data.folders import PARTS
from visionlora.data.peeking import files_with, folders_in, image_stems, shows_images
from visionlora.data.usual_names import (
    AFTER_IMAGES,
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    MASK_FOLDERS,
    OTHER_MASK_FOLDERS,
)
from visionlora.errors import InputError, some

_IMAGES, _LABELS = set(IMAGE_FOLDERS), set(LABEL_FOLDERS)
_MASKS = {*MASK_FOLDERS, *OTHER_MASK_FOLDERS}
_LABEL_SUFFIXES = (".xml", ".json", ".txt", ".csv", ".data", ".names", ".mat", ".npy")


def refuse_what_is_no_class_folders(root: Path) -> None:
    """Raises InputError for labelled objects, with the name of their format, and as ``refuse_other_layouts``."""
    layout = recognise(root)
    if layout is not None:
        raise InputError(
            f"{root}: is {NAMES[layout.format]}, with boxes or masks, and no class folders; look at it with visionlora "
            f"check-data {root}, and train a detector or a segmenter: data.annotations={root}"
        )
    refuse_other_layouts(root)


def refuse_other_layouts(root: Path) -> None:
    """Raises InputError for a folder, or parts in it, whose folders are images and their annotations or masks.

    A class may be called so too: it takes two folders that belong together, or one of images and one in which text,
    XML or the like lies under the images' names, and no image.
    """
    for folder in (root, *(child for child in folders_in(root) if child.name.lower() in PARTS)):
        _refuse(folder, root)


def _refuse(folder: Path, root: Path) -> None:
    children = folders_in(folder)
    names = {child.name.lower() for child in children}
    seen = f"{folder}: holds {some(child.name for child in children)}"
    masks = any(child.name.lower() in _LABELS and shows_images(child) for child in children)
    if names & _IMAGES and (masks or names & _MASKS or any(name.endswith(AFTER_IMAGES) for name in names)):
        raise InputError(
            f"{seen}: images and masks, and no class folders; give the file of their classes, as in "
            f"visionlora check-data {root} --classes classes.yaml, and train a segmenter on them"
        )
    stems = {stem for child in children for stem in image_stems(child)}
    apart = [child for child in children if _holds_labels_of(stems, child)]
    if (names & _IMAGES and names & _LABELS) or (apart and stems):
        files = sorted({path.suffix.lower() for child in apart for path in files_with(child, *_LABEL_SUFFIXES)})
        kinds = f" with {some(files)} files" if files else ""
        raise InputError(
            f"{seen}: images and annotations, and no class folders, but of no format that is known{kinds}; export "
            "COCO, Pascal VOC or YOLO, or give the file of the annotations: visionlora check-data FILE --root IMAGES"
        )
    if len(names) == 1 and names <= _IMAGES:
        raise InputError(
            f"{seen}: a folder of images, and no class folders; for classes, put them into one folder per class, and "
            "for boxes or masks give the file of the annotations: visionlora check-data FILE --root IMAGES"
        )


def _holds_labels_of(stems: set[str], folder: Path) -> bool:
    """Whether it has text or the like and no image, and is called like labels, or its files are like the images."""
    files = files_with(folder, *_LABEL_SUFFIXES)
    if not files or shows_images(folder):
        return False
    return folder.name.lower() in (_LABELS | _MASKS) or any(file.stem in stems for file in files)
