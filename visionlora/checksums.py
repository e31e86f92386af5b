"""Files that hold their own SHA-256, so that a byte that has changed is noticed.

The hash is that of the whole file with 64 zeros in the hash's own place: whoever writes a file puts ``BLANK`` into its
metadata under ``FIELD`` and then calls ``stamp``. Files without one, as older versions wrote them, are taken as they
are.
"""

import hashlib
import mmap
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from visionlora.errors import InputError

FIELD = "sha256"
_MARK = "visionlora-sha256:"
BLANK = _MARK + "0" * 64

_STAMP = re.compile(_MARK.encode() + rb"([0-9a-f]{64})")
_CHUNK = 1 << 20
_CONFIG, _CONFIG_FIELD = "config.json", "config_sha256"


def stamp(path: Path) -> None:
    """Write the file's hash into the place that ``BLANK`` keeps for it."""
    found = _find(path)
    assert found, f"{path} has no place for its hash"
    with path.open("r+b") as file:
        file.seek(found[0])
        file.write(_digest(path, found[0]).encode())


def refuse_damaged(path: Path, fields: Container[str]) -> None:
    """Raise InputError if the file's bytes are not those that were written.

    Args:
        fields: names of its metadata. One of the two, the field and what is in it, outlives any single fault.
    """
    found = _find(path)
    if found is None and FIELD not in fields:
        return
    if found is None or found[1] != _digest(path, found[0]):
        raise InputError(f"{path}: is damaged, its bytes are not those that were written; copy or save it again")


def config_field(folder: Path) -> dict[str, str]:
    """Metadata that says the hash of the folder's config.json, if it has one."""
    path = folder / _CONFIG
    return {_CONFIG_FIELD: file_digest(path)} if path.is_file() else {}


def refuse_damaged_config(path: Path, fields: Mapping[str, str]) -> None:
    """Raise InputError if the config.json beside the file is not the one that its metadata says, if any."""
    written, there = fields.get(_CONFIG_FIELD), config_field(path.parent).get(_CONFIG_FIELD)
    if written and there and there != written:
        raise InputError(
            f"{path.with_name(_CONFIG)}: is damaged or was edited, it is not what was written with {path.name}; "
            "copy or export it again"
        )


def file_digest(path: Path, size: int | None = None) -> str:
    """SHA-256 of a file, or of its first ``size`` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        _feed(digest, file, path.stat().st_size if size is None else size)
    return digest.hexdigest()


def _find(path: Path) -> tuple[int, str] | None:
    """Where the hash is, and what it is."""
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        match = _STAMP.search(content)
        return (match.start(1), match[1].decode()) if match else None


def _digest(path: Path, at: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        _feed(digest, file, at)
        digest.update(b"0" * 64)
        file.seek(at + 64)
        _feed(digest, file, path.stat().st_size)
    return digest.hexdigest()


def _feed(digest: Any, file: BinaryIO, most: int) -> None:
    """Add what comes next in the file, at most so many bytes."""
    while most and (chunk := file.read(min(most, _CHUNK))):
        digest.update(chunk)
        most -= len(chunk)
