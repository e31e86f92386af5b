"""The folder that the file names of a COCO json are relative to."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from visionlora.data.annotations.part_names import part_of
from visionlora.data.file_names import ImageFolder, folded, is_file, leaves
from visionlora.data.folders import images_in
from visionlora.data.peeking import folders_in

_TRIED = 200
"""File names, and folders, that are tried."""
_SPELLED = 12
"""Folders, where none has a name as it is written."""

ANNOTATION_FOLDERS = {"annotations", "annotation", "labels", "anns", "ann", "json", "jsons"}
"""Folders of these names, in upper or lower case, lie beside the images' own."""


def find_root(path: Path, names: Sequence[object]) -> ImageFolder:
    """Where most of the first files are: the json's folder, ``images`` in it, or another folder in it.

    For a json in ``annotations`` or the like, these are also looked for in the folder above. Where none has any, the
    json's folder, and files are looked for in all of the data set.
    """
    above = path.parent.name.lower() in ANNOTATION_FOLDERS
    data = path.parent.parent if above else path.parent
    plain = [name.replace("\\", "/") for name in names if isinstance(name, str) and not leaves(name)][:_TRIED]
    candidates = [path.parent, path.parent / "images"]
    if above:
        candidates += [data, data / "images"]
    others = _folders(data)
    for folder in list(others):
        others += _folders(folder)[:_TRIED] if folder.name.lower() in ("images", "data") else []
    part = part_of(path.stem)
    # val.json may have the same names as train.json: of folders with files of that name, its own comes first
    candidates += sorted(others, key=lambda folder: (part_of(folder.name) != part, part_of(folder.name) is not None))
    best, most = data, 0
    for candidate in list(dict.fromkeys(candidates))[:_TRIED]:
        count = sum(is_file(candidate / name) for name in plain)
        if count > most:
            best, most = candidate, count
        if plain and most == len(plain):
            break
    if not most:
        best = _by_spelling(plain, list(dict.fromkeys(candidates))[:_SPELLED], data) or data
    return ImageFolder(best, data)


def _by_spelling(names: Sequence[str], candidates: Sequence[Path], data: Path) -> Path | None:
    """Where most are as they are spelled otherwise: ``%20``, another Unicode form, upper or lower case."""
    wanted = {folded(unquote(name)) for name in names}
    images = images_in(data)
    counts = [
        len(wanted & {folded(path.relative_to(folder).as_posix()) for path in images if path.is_relative_to(folder)})
        for folder in candidates
    ]
    most = max(counts, default=0)
    return candidates[counts.index(most)] if most else None


def _folders(folder: Path) -> list[Path]:
    return folders_in(folder) if folder.is_dir() else []
