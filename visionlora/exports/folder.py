"""The folder that an export will be."""

from pathlib import Path

from visionlora.errors import InputError, some


def refuse_folder(out: Path) -> None:
    """Raise InputError unless ``out`` is free to become a folder."""
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"--out {out}: {path} is a file; give a folder")
    if out.is_dir() and (there := sorted(path.name for path in out.iterdir())):
        raise InputError(f"--out {out}: is not empty (it holds {some(there, 3)}); give another folder")
