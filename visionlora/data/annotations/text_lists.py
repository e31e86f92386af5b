"""Text files that are no annotations by themselves, and what to give instead."""

from pathlib import Path

from visionlora.errors import InputError

_LINES = 20
_LONGEST = 1000


def refuse_text(path: Path) -> None:
    """Raise InputError for a ``.txt`` of which it can be said what it is; return for any other."""
    try:
        with path.open(encoding="utf-8", errors="strict") as file:
            start = [line for _, line in zip(range(_LINES), iter(lambda: file.readline(_LONGEST), ""), strict=False)]
    except (OSError, UnicodeDecodeError):
        return
    rows = [line.split() for line in start if line.strip() and not line.startswith("#")]
    if not rows:
        return
    if all(len(row) == 4 and _are_numbers(row[1:]) and not _are_numbers(row[:1]) for row in rows):
        raise InputError(
            f"{path}: lists photos of Oxford-IIIT Pet with class, species and breed; for the boxes of their heads: "
            f"visionlora check-data {path.parent.parent}; a table of the breeds is made by two lines of data/README.md"
        )
    if all(len(row) >= 5 and _are_numbers(row) for row in rows):
        raise InputError(
            f"{path}: has the numbers of one image, as YOLO's labels are; give data.yaml or the folder of all"
        )
    if all(len(row) == 1 for row in rows):
        raise InputError(f"{path}: lists names and no labels; give the folder or file that has these: {path.parent}")
    if all(len(row) == 2 for row in rows):
        raise InputError(f"{path}: has two words in a line; save it as a table with the line path,label first, as .csv")


def _are_numbers(words: list[str]) -> bool:
    try:
        return [float(word) for word in words] != []
    except ValueError:
        return False
