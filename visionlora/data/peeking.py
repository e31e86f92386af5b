"""A quick look into folders that may hold very many images: names only, and nothing is opened."""

import os
from collections.abc import Iterator
from pathlib import Path

from visionlora.data.folders import is_hidden
from visionlora.data.images import IMAGE_SUFFIXES

_IMAGES = tuple(IMAGE_SUFFIXES)


def folders_in(folder: Path) -> list[Path]:
    """Directly in it, by name, without hidden ones, and without links that lead back to it."""
    above = {folder.resolve(), *folder.resolve().parents}
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not is_hidden(entry.name) and entry.is_dir()]
    kept = [entry.name for entry in found if not (entry.is_symlink() and Path(entry.path).resolve() in above)]
    return [folder / name for name in sorted(kept)]


def files_with(folder: Path, *suffixes: str) -> list[Path]:
    """Regular files directly in it with one of these endings, in upper or lower case, by name."""
    with os.scandir(folder) as entries:
        found = [e.name for e in entries if e.name.lower().endswith(suffixes) and not is_hidden(e.name) and e.is_file()]
    return [folder / name for name in sorted(found)]


def files_below(folder: Path, *suffixes: str) -> list[Path]:
    """As ``files_with``, in its subfolders too, by path."""
    return sorted(_below(folder, suffixes))


def shows_images(folder: Path) -> bool:
    """Whether there is an image directly in it."""
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(_IMAGES) and not is_hidden(entry.name) for entry in entries)


def shows_below(folder: Path, *suffixes: str) -> bool:
    """Whether ``files_below`` finds any."""
    return next(_below(folder, suffixes), None) is not None


def names_in(folder: Path) -> list[str]:
    """Of all that is directly in it, without what is hidden."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not is_hidden(entry.name))


def image_stems(folder: Path) -> set[str]:
    """Names of the images directly in it, without their endings."""
    with os.scandir(folder) as entries:
        return {entry.name.rpartition(".")[0] for entry in entries if entry.name.lower().endswith(_IMAGES)}


def _below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for parent, children, names in os.walk(folder):
        children[:] = sorted(name for name in children if not is_hidden(name))
        for name in names:
            if name.lower().endswith(suffixes) and not is_hidden(name) and (path := Path(parent, name)).is_file():
                yield path
