"""Folders of images: which files count, and what isn't there."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from visionlora.data.images import is_image
from visionlora.errors import InputError, did_you_mean, some

PARTS = ("train", "training", "val", "valid", "validation", "test", "testing")
"""Folders of these names, in upper or lower case, are parts of a data set and no classes."""

_UNREAD_SUFFIXES = {".avif", ".dng", ".heic", ".heif", ".jp2", ".jxl"}

_JUNK = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
"""Folders, in lower case, that macOS, Windows, NAS boxes and Python leave behind; the others begin with a dot."""


def images_in(folder: Path) -> list[Path]:
    """All images in a folder and its subfolders, sorted; hidden files and folders left out."""
    return [path for path in files_in(folder) if is_image(path)]


def refuse_unread_formats(folder: Path) -> None:
    """Raises InputError for images that would otherwise go missing, since their format isn't read."""
    unread = [path for path in files_in(folder) if path.suffix.lower() in _UNREAD_SUFFIXES]
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


def find_part(part: str, names: Iterable[str]) -> str | None:
    """The name that means ``train`` or ``val``: itself, or else another word for it, in any case; None for none."""
    words = {"train": ("train", "training"), "val": ("val", "valid", "validation")}[part]
    found = [name for name in names if name.lower() in words]
    return min(found, key=lambda name: (name != part, words.index(name.lower()), name), default=None)


def what_there_is(path: Path) -> str:
    """For a missing path: the nearest name, or what the nearest folder above it that does exist holds."""
    missing, parent = path, path.parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent, parent.parent
    there = sorted(entry.name for entry in parent.iterdir() if not is_hidden(entry.name))
    return did_you_mean(missing.name, there) or f"; {parent} holds {some(there) or 'nothing'}"


def subfolders(root: Path) -> list[Path]:
    """The folders directly in ``root``, sorted, without hidden ones, and without links that lead back to it."""
    above = {root.resolve(), *root.resolve().parents}
    folders = [path for path in root.iterdir() if not is_hidden(path.name) and path.is_dir()]
    return sorted(path for path in folders if not (path.is_symlink() and path.resolve() in above))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over: hidden, or what a system leaves behind."""
    return name.startswith(".") or name.casefold() in _JUNK


def files_in(folder: Path) -> list[Path]:
    """All regular files and broken links in a folder and its subfolders, sorted; hidden ones left out.

    Links are followed, and a folder that is reached a second time is passed over.
    """
    return sorted(_walk(folder))


def holds_image(folder: Path) -> bool:
    """Whether there is one in it or in its subfolders."""
    return any(is_image(path) for path in _walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    waiting = [folder]
    links: list[Path] = []
    seen: set[tuple[int, int]] = set()
    while waiting or links:
        current = waiting.pop() if waiting else links.pop()  # so that a folder has its own name rather than a link's
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(current) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    (links if entry.is_symlink() else waiting).append(Path(entry.path))
                # A broken link is for the reader to refuse; a pipe would wait for ever for who writes to it.
                elif entry.is_file() or not Path(entry.path).exists():
                    yield Path(entry.path)
        links.sort(reverse=True)
