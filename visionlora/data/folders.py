"""Class folders and the images in them."""

import os
from pathlib import Path

from visionlora.data.images import is_image
from visionlora.errors import InputError, did_you_mean, some

PARTS = ("train", "training", "val", "valid", "validation", "test")
"""Folders of these names, in upper or lower case, are parts of a data set and no classes."""

_UNREAD_SUFFIXES = {".avif", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jxl"}


def class_folders(root: Path) -> dict[str, Path]:
    """The folders directly in `root` by name, hidden ones left out.

    Raises:
        InputError: no such folder, no folders in it, or nothing but train, val and the like.
    """
    refuse_missing_folder(root)
    folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and not _is_hidden(path)}
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
    return folders


def images_in(folder: Path) -> list[Path]:
    """All images in a folder and its subfolders, sorted; hidden files and folders left out."""
    return [path for path in _files_in(folder) if is_image(path)]


def refuse_unread_formats(folder: Path) -> None:
    """Raises InputError for images that would otherwise go missing, since their format isn't read."""
    unread = [path for path in _files_in(folder) if path.suffix.lower() in _UNREAD_SUFFIXES]
    if unread:
        raise InputError(
            f"{folder}: {len(unread)} image{'s' * (len(unread) > 1)} in a format that isn't read "
            f"({some(path.name for path in unread)}); convert to JPEG or PNG, or remove"
        )


def refuse_missing_folder(root: Path) -> None:
    """Raises InputError that says what there is instead."""
    if root.is_dir():
        return
    if root.exists():
        raise InputError(f"{root}: is a file; a folder is needed")
    raise InputError(f"{root}: no such folder{what_there_is(root)}")


def what_there_is(path: Path) -> str:
    """For a missing path: the nearest name, or what the nearest folder above it that does exist holds."""
    missing, parent = path, path.parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent, parent.parent
    there = sorted(entry.name for entry in parent.iterdir() if not _is_hidden(entry))
    return did_you_mean(missing.name, there) or f"; {parent} holds {some(there) or 'nothing'}"


def _files_in(folder: Path) -> list[Path]:
    found = []
    for parent, subfolders, names in os.walk(folder, followlinks=True):  # rglob doesn't follow links
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")
