"""Folders that are no class folders, whatever they are: none of them is ever read as classes."""

from pathlib import Path

from visionlora.data.folders import PARTS
from visionlora.data.images import is_image
from visionlora.errors import InputError, some

_IMAGES = {"images", "imgs", "img", "image", "jpegimages", "img_dir", "obj_train_data", "pictures", "photos", "frames"}
_MASKS = {"masks", "mask", "segmentationclass", "segmentationobject", "ann_dir", "segmentations", "gtfine", "gt"}
_LABELS = {"labels", "label", "annotations", "annotation", "anns", "ann", "xml", "xmls", "json", "jsons", "imagesets"}
_LABEL_SUFFIXES = {".xml", ".json", ".txt", ".csv", ".data", ".names", ".mat", ".npy"}


def refuse_other_layouts(root: Path) -> None:
    """Raises InputError for a folder, or parts in it, whose folders are images and their annotations or masks.

    A class may be called so too: it takes two folders that belong together, or one of images and one in which text,
    XML or the like lies, and no image.
    """
    for folder in (root, *(child for child in _folders(root) if child.name.lower() in PARTS)):
        _refuse(folder, root)


def _refuse(folder: Path, root: Path) -> None:
    children = _folders(folder)
    names = {child.name.lower() for child in children}
    seen = f"{folder}: holds {some(child.name for child in children)}"
    if names & _IMAGES and (names & _MASKS or any(name.endswith(("annot", "_mask", "_masks")) for name in names)):
        raise InputError(
            f"{seen}: images and masks, and no class folders; give the file of their classes, as in "
            f"visionlora check-data {root} --classes classes.yaml, and train a segmenter on them"
        )
    apart = [child for child in children if _holds_labels_alone(child)]
    if (names & _IMAGES and names & _LABELS) or (apart and any(_holds_images(child) for child in children)):
        files = sorted({path.suffix.lower() for child in apart for path in child.rglob("*") if path.suffix} - {""})
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


def _folders(folder: Path) -> list[Path]:
    return [child for child in sorted(folder.iterdir()) if child.is_dir() and child.name[0] not in "._"]


def _holds_images(folder: Path) -> bool:
    return any(map(is_image, folder.iterdir()))


def _holds_labels_alone(folder: Path) -> bool:
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    return any(path.suffix.lower() in _LABEL_SUFFIXES for path in files) and not any(map(is_image, files))
