"""File names as annotation files write them -> files inside the data folder."""

import os
import re
import unicodedata
from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from visionlora.data.faults import Spot, shown
from visionlora.data.folders import images_in
from visionlora.errors import some

_LEFT_OUT = "image left out"
_UPLOAD = re.compile(r"^(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{4,32})[-_](?=.)", re.IGNORECASE)
"""What Label Studio and others put before the name of an uploaded file."""


class ImageFolder:
    """The image files of a data folder, and what other names may mean; it is listed when a name isn't there.

    Attributes:
        root: what names are relative to.
        search: the folder that a misnamed file is looked for in, ``root`` or one above it.
    """

    def __init__(self, root: Path, search: Path | None = None):
        self.root = root
        self.search = search or root

    def locate(self, name: object, spot: Spot, base: Path | None = None, elsewhere: str = "elsewhere") -> Path | None:
        """The file ``base``/``name``, or None, noted as a fault: no name, outside of the folder, or no such file.

        The same path spelled otherwise (Windows separators, ``%20``, another Unicode form, upper or lower case) is
        taken with a remark. Where only a file in another place has the name, that is taken and noted as
        ``elsewhere``: an error that a mended copy takes, or, with ``other-path``, a remark, for formats that never
        write where a file lies here. A link that leads out of the folder is outside.

        Args:
            name: as written.
            spot: of the entry that wrote it.
            base: what it is relative to, by default ``root``.
            elsewhere: the kind of fault for a file in another place.
        """
        if not isinstance(name, str) or not name.strip():
            advice = f"give a path relative to {self.root}"
            spot.note("malformed", f"the file name is {shown(name)}; {advice}", _LEFT_OUT)
            return None
        path = self._as_written(name, base or self.root)
        if path is None:
            path = self._spelled_otherwise(name, base or self.root, spot)
        if path is not None:
            return self._inside(path, name, spot)
        found = self._elsewhere(name)
        if len(found) == 1:
            place = self._shown(found[0])
            text = f"{shown(name)} is not there; the only file of that name is at {place}"
            spot.note(elsewhere, text if elsewhere == "other-path" else f"{text}; correct the path", f"{place} taken")
            return self._inside(found[0], name, spot)
        if len(found) > 1:
            places = some((self._shown(path) for path in found), 3)
            text = f"{shown(name)} is not there, and {len(found)} files have that name: {places}; write which is meant"
            spot.note("missing-file", text, _LEFT_OUT)
        elif leaves(name):
            advice = f"give a path relative to {self.root}, without '..'"
            spot.note("outside-folder", f"{shown(name)} leaves the data folder; {advice}", _LEFT_OUT)
        else:
            advice = "correct the name, or add the file"
            spot.note("missing-file", f"{shown(name)} is not in {self.root}; {advice}", _LEFT_OUT)
        return None

    def _as_written(self, name: str, base: Path) -> Path | None:
        path = base / name
        if leaves(name):
            if base == self.root:
                return None
            path = Path(os.path.normpath(path))  # a file of labels may say ../images/a.jpg
            if not path.is_relative_to(self.search):
                return None
        return path if is_file(path) else None

    def _spelled_otherwise(self, name: str, base: Path, spot: Spot) -> Path | None:
        written = name.replace("\\", "/")
        if leaves(written):
            return None
        if is_file(base / written):
            spot.note("other-path", f"{shown(name)} has Windows separators; write them as /", "written with /")
            return base / written
        plain = unquote(written)
        if plain != written and not leaves(plain) and is_file(base / plain):
            spot.note("other-path", f"{shown(name)} is encoded as in a URL; {shown(plain)} is taken", f"{plain} taken")
            return base / plain
        if leaves(plain) or not base.is_relative_to(self.search):
            return None
        wanted = self._shown(base / plain)
        for index, key, what in (
            (self._by_composed_path, _composed, "another Unicode form"),
            (self._by_folded_path, folded, "other capitals"),
        ):
            if len(found := index.get(key(wanted), [])) == 1:
                place = self._shown(found[0])
                text = f"{shown(name)} is there in {what}: the only file of that name is at {place}"
                spot.note("other-path", text, f"{place} taken")
                return found[0]
        return None

    def _elsewhere(self, name: str) -> list[Path]:
        """The files that have the name wherever they lie, by the strictest way of comparing that finds any."""
        parts = _parts(name)
        if not parts:
            return []
        wanted = parts[-1]
        for index, keys in (
            (self._by_name, [wanted]),
            (self._byfolded, [folded(wanted)]),
            (self._by_folded_stem, [folded(wanted)]),  # frames of a video are listed without an ending
            (self._byfolded, [folded(_UPLOAD.sub("", wanted))]),
            (self._by_upload, [folded(wanted), folded(_UPLOAD.sub("", wanted))]),
        ):
            for key in keys:
                if found := index.get(key):
                    return _nearest(found, parts)
        return []

    def _inside(self, path: Path, name: str, spot: Spot) -> Path | None:
        if path.resolve().is_relative_to(self._real_search):
            return path
        advice = "put the file itself there, or give its folder as the root"
        spot.note("outside-folder", f"{shown(name)} is a link that leaves the data folder; {advice}", _LEFT_OUT)
        return None

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.search).as_posix()

    @cached_property
    def _real_search(self) -> Path:
        return self.search.resolve()

    @cached_property
    def _images(self) -> list[Path]:
        return images_in(self.search)

    @cached_property
    def _by_composed_path(self) -> dict[str, list[Path]]:
        return _index(self._images, lambda path: _composed(self._shown(path)))

    @cached_property
    def _by_folded_path(self) -> dict[str, list[Path]]:
        return _index(self._images, lambda path: folded(self._shown(path)))

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return _index(self._images, lambda path: path.name)

    @cached_property
    def _byfolded(self) -> dict[str, list[Path]]:
        return _index(self._images, lambda path: folded(path.name))

    @cached_property
    def _by_folded_stem(self) -> dict[str, list[Path]]:
        return _index(self._images, lambda path: folded(path.stem))

    @cached_property
    def _by_upload(self) -> dict[str, list[Path]]:
        return _index(self._images, lambda path: folded(_UPLOAD.sub("", path.name)))


def locate(root: Path, name: object, spot: Spot) -> Path | None:
    """``ImageFolder.locate`` for a single name."""
    return ImageFolder(root).locate(name, spot)


def leaves(name: str) -> bool:
    """Whether a relative path is none: absolute, with a drive, or with ``..``."""
    path = PureWindowsPath(name)  # splits at / and \ and knows drives, so that it covers both systems
    return bool(path.drive or path.root) or ".." in path.parts


def is_file(path: Path) -> bool:
    """``Path.is_file``, and False for a name that is too long for a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # ValueError: a null character
        return False


def _parts(name: str) -> list[str]:
    """Folders and file of a path or URL of any system, decoded."""
    text = name.replace("\\", "/")
    if "://" in text or text.startswith("/data/"):
        text, _, query = text.partition("?")
        local = re.search(r"(?:^|&)d=([^&]+)", query)  # Label Studio's local storage
        text = local[1] if local else text
    return [part for part in unquote(text).split("/") if part not in ("", ".", "..")]


def _nearest(found: list[Path], parts: list[str]) -> list[Path]:
    """Of several files of one name, the one that shares the most folders above it, if one does."""
    shared = [_shared_end(_folded_parts(path), [folded(part) for part in parts]) for path in found]
    best = [path for path, count in zip(found, shared, strict=True) if count == max(shared)]
    return best if len(best) == 1 else found


def _shared_end(first: list[str], second: list[str]) -> int:
    count = 0
    while count < min(len(first), len(second)) - 1 and first[-2 - count] == second[-2 - count]:
        count += 1
    return count


def _folded_parts(path: Path) -> list[str]:
    return [folded(part) for part in PurePosixPath(path.as_posix()).parts]


def _index(paths: list[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    index: dict[str, list[Path]] = {}
    for path in paths:
        index.setdefault(key(path), []).append(path)
    return index


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """For comparing names whatever their capitals and Unicode form."""
    return unicodedata.normalize("NFC", text).casefold()
