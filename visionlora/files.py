"""Files and folders that are either whole or absent."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to fill; it is synced and becomes ``path`` if the block ends well, else is gone.

    A reader, or a process that starts after a crash, sees the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill what becomes ``path``; see ``new_file``."""
    with new_file(path) as temporary:
        write(temporary)


_UNFINISHED = re.compile(r"\.(.+?)(\.[a-z0-9_]{8})?\.tmp")
"""Temporary names of ``new_file`` and ``new_folder``, or of what is made under one name at a time."""


def unfinished(name: str) -> str:
    """What a temporary file or folder of this name was to become; empty if it is none of ours.

    A process that is killed while it writes leaves one behind.
    """
    match = _UNFINISHED.fullmatch(name)
    return match[1] if match else ""


@contextmanager
def growing_json(path: Path) -> Iterator[Callable[[Any], None]]:
    """What to call with each entry of a list of any length, which is written as it grows; see ``new_file``.

    Where the name ends in ``.jsonl``, each entry is a line of its own; else the file is one JSON list.
    """
    lines = path.suffix == ".jsonl"
    with new_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        before = "" if lines else "[\n"

        def add(entry: Any) -> None:
            nonlocal before
            file.write(before + json.dumps(entry))
            before = "\n" if lines else ",\n"

        yield add
        empty = "" if lines else "[]\n"
        file.write(empty if before in ("", "[\n") else "\n" if lines else "\n]\n")


@contextmanager
def lengthening_lines(path: Path) -> Iterator[Callable[[Any], object]]:
    """What to call with each of any number of entries, which is in the file, as a line of JSON, when the call returns.

    For what has no end: the file has its name from the beginning, and lines are added to one that is there.

    Raises:
        OSError: the file can't be written, or one that is there doesn't end with a line's end; it is left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not _ends_a_line(path):
        raise OSError(f"{path}: is there already and ends within a line; give another file")
    # Unbuffered, in one write: a process that is killed leaves whole lines, and other readers see no half ones.
    with path.open("ab", buffering=0) as file:
        yield lambda entry: file.write(f"{json.dumps(entry)}\n".encode())


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


@contextmanager
def tensor_errors(path: Path) -> Iterator[None]:
    """Turn the error by which safetensors says that it can't write into an OSError that names the file."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON, atomically."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` to fill; it becomes ``out``, which is absent or empty, if the block ends well,
    and else is gone.
    """
    # Where out's parents are missing, beside the first of them: a failure then leaves none of them either.
    home = next(path for path in out.absolute().parents if path.is_dir())
    temporary = Path(tempfile.mkdtemp(dir=home, prefix=f".{out.name}.", suffix=".tmp"))
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            # Some libraries write files that nobody else may read.
            path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
            sync(path)
        temporary.chmod(0o777 & ~_umask())
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(out)
        sync(out.parent)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(out)) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # It can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
