"""What people call the parts of a data set."""

import re
from collections.abc import Sequence
from pathlib import Path

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
ORDER = ("train", "val", "test")


def canonical(name: str) -> str:
    """``train``, ``val`` or ``test`` for what means one of them, any other name as it stands."""
    return _PARTS.get(name.lower(), name)


def is_part(name: str) -> bool:
    """Whether a folder or key of this name is a part."""
    return name.lower() in _PARTS


def part_of(stem: str) -> str | None:
    """The part that a file's or folder's name tells of, as in ``instances_train2017``; None for none or several."""
    words = {_PARTS[word] for word in re.split("[^a-z]+", stem.lower()) if word in _PARTS}
    return words.pop() if len(words) == 1 else None


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each of several paths that are parts of one data set."""
    told = [part_of(path.stem) or part_of(path.parent.name) for path in paths]
    if all(told) and len(set(told)) == len(told):
        return [str(name) for name in told]
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
