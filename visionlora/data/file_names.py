"""File names as annotation files write them -> files inside the data folder."""

from pathlib import Path, PureWindowsPath

from visionlora.data.faults import Spot, shown

_LEFT_OUT = "image left out"


def locate(root: Path, name: object, spot: Spot) -> Path | None:
    """The file `root`/`name`, or None, noted as a fault: no name, outside `root`, or no such file.

    A link that leads out of `root` is outside. ``sub\\img.jpg`` is taken for ``sub/img.jpg`` where only that
    exists, noted as a remark.
    """
    if not isinstance(name, str) or not name:
        spot.note("malformed", f"the file name is {shown(name)}; give a path relative to {root}", _LEFT_OUT)
        return None
    if leaves(name):
        advice = f"give a path relative to {root}, without '..'"
        spot.note("outside-folder", f"{shown(name)} leaves the data folder; {advice}", _LEFT_OUT)
        return None
    path = root / name
    if not is_file(path) and "\\" in name and is_file(root / name.replace("\\", "/")):
        path = root / name.replace("\\", "/")
        spot.note("other-path", f"{shown(name)} has Windows separators; write them as /", "written with /")
    if not is_file(path):
        spot.note("missing-file", f"{shown(name)} is not in {root}; correct the name, or add the file", _LEFT_OUT)
        return None
    if not path.resolve().is_relative_to(root.resolve()):
        advice = "put the file itself there, or give its folder as the root"
        spot.note("outside-folder", f"{shown(name)} is a link that leaves the data folder; {advice}", _LEFT_OUT)
        return None
    return path


def leaves(name: str) -> bool:
    """Whether a relative path is none: absolute, with a drive, or with ``..``."""
    path = PureWindowsPath(name)  # splits at / and \ and knows drives, so that it covers both systems
    return bool(path.drive or path.root) or ".." in path.parts


def is_file(path: Path) -> bool:
    """`Path.is_file`, and False for a name that is too long for a file."""
    try:
        return path.is_file()
    except OSError:
        return False
