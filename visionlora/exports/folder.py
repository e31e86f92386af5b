"""A folder that appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionlora.errors import InputError, some
from visionlora.files import sync


def refuse_folder(out: Path) -> None:
    """Raise InputError unless ``out`` is free to become a folder."""
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"--out {out}: {path} is a file; give a folder")
    if out.is_dir() and (there := sorted(path.name for path in out.iterdir())):
        raise InputError(f"--out {out}: is not empty (it holds {some(there, 3)}); give another folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` to fill; it becomes ``out`` if the block ends well, and else is gone.

    Raises:
        InputError: ``out`` is a file or a folder that holds something.
    """
    refuse_folder(out)
    # Where out's parents are missing, beside the first of them: a failure then leaves none of them either.
    home = next(path for path in out.absolute().parents if path.is_dir())
    temporary = Path(tempfile.mkdtemp(dir=home, prefix=f".{out.name}.", suffix=".tmp"))
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            sync(path)
        temporary.chmod(0o777 & ~_umask())
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(out)
        sync(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    # It can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
