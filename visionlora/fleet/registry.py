"""A fleet's folder: versions of cameras' adapters are added, and gone back to; one process at a time changes it."""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from torch import nn

from visionlora.adapters.attached import check_name
from visionlora.adapters.header import Header, read_file
from visionlora.checksums import file_digest
from visionlora.config import load_config
from visionlora.errors import InputError, some
from visionlora.files import unfinished, write_atomic
from visionlora.fleet.index import FILES, INDEX, Change, Entry, Index, Version, read_index, write_index
from visionlora.tasks.about import check_kinds
from visionlora.tasks.trained import ADAPTER, CONFIG
from visionlora.training.lock import locked

LOCK = "fleet.lock"
PATIENCE = 60.0
"""Seconds to wait for another process that changes the fleet."""


def add(folder: Path, camera: str, source: Path, note: str = "") -> Version:
    """Add a version of a camera's adapter, and make it the current one; the first makes the camera, and the fleet.

    Args:
        folder: of the fleet; absent, empty, or a fleet's.
        camera: letters, digits, ``-`` and ``_``.
        source: a run folder, or an adapter's file. It is copied.
        note: for the version and the audit.

    Raises:
        InputError: the file is damaged or no adapter's, was made on another base than the fleet's others, or is the
            camera's current version already; or the folder holds something else. Nothing has changed then.
    """
    check_name(nn.Identity(), camera)
    _check_texts(camera, note)
    file = source / ADAPTER if source.is_dir() else source
    header, _ = read_file(file)
    _refuse_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _changing(folder):
        index = read_index(folder) if (folder / INDEX).is_file() else Index()
        _refuse_other_base(folder, index, header, file)
        entry = index.cameras.get(camera)
        digest = file_digest(file)
        if entry is not None and entry.version().sha256 == digest:
            raise InputError(f"{file}: is version {entry.current} of '{camera}' already, and the current one")
        number = 1 if entry is None else len(entry.versions) + 1
        version = _describe(number, digest, file, header, note)
        content = file.read_bytes()
        write_atomic(folder / version.file(camera), lambda temporary: temporary.write_bytes(content))
        if file_digest(folder / version.file(camera)) != digest:
            raise InputError(f"{file}: changed while it was copied; add it again")
        versions = [] if entry is None else entry.versions
        change = _change("add", camera, number, 0 if entry is None else entry.current, note)
        _replace(folder, index, camera, Entry(current=number, versions=[*versions, version]), change)
    return version


def rollback(folder: Path, camera: str, to: int | None = None, note: str = "") -> Version:
    """Make another version of a camera the current one: ``to``, or the one before.

    Raises:
        InputError: no such camera or version, it is the current one, or its file is damaged; nothing has changed then.
    """
    _check_texts(camera, note)
    read_index(folder)
    with _changing(folder):
        index = read_index(folder)
        entry = index.entry(camera, folder)
        if to is None and entry.current == 1:
            raise InputError(f"'{camera}' is at version 1, there is none before; name one with --to")
        version = entry.version(entry.current - 1 if to is None else to)
        if version.number == entry.current:
            raise InputError(f"'{camera}' is at version {version.number} already")
        whole_file(folder, camera, version)
        change = _change("rollback", camera, version.number, entry.current, note)
        _replace(folder, index, camera, entry.model_copy(update={"current": version.number}), change)
    return version


def adapter_file(folder: Path, camera: str, number: int | None = None) -> Path:
    """The file of a camera's current adapter, or of a version, after its hash was looked at.

    Raises:
        InputError: no such camera or version, or the file is missing or damaged.
    """
    return whole_file(folder, camera, read_index(folder).entry(camera, folder).version(number))


def adapter_files(folder: str | Path) -> dict[str, Path]:
    """Camera -> the file of its current adapter, as ``vl.Fleet`` takes them; raises as ``adapter_file``."""
    folder = Path(folder)
    index = read_index(folder)
    return {camera: whole_file(folder, camera, entry.version()) for camera, entry in index.cameras.items()}


def whole_file(folder: Path, camera: str, version: Version) -> Path:
    """A version's file; InputError if it is missing, or not what was added."""
    path = folder / version.file(camera)
    if not path.is_file():
        raise InputError(f"{path}: is missing; bring it back from a copy, or roll '{camera}' back")
    if file_digest(path) != version.sha256:
        raise InputError(f"{path}: is not the file that was added; bring it back from a copy, or roll '{camera}' back")
    return path


def check(folder: Path) -> list[str]:
    """What is wrong with a fleet, a line for each fault; empty if all is well. Files that no version names are none.

    Raises:
        InputError: the folder holds no fleet, or its index is damaged.
    """
    index = read_index(folder)
    faults = []
    for camera, entry in index.cameras.items():
        for version in entry.versions:
            try:
                read_file(whole_file(folder, camera, version))
            except InputError as error:
                faults.append(f"{camera}, version {version.number}: {error}")
    return faults


def unnamed_files(folder: Path) -> list[Path]:
    """Files among the adapters that no version names: what a killed process left, or somebody put there."""
    index = read_index(folder)
    named = {folder / one.file(camera) for camera, entry in index.cameras.items() for one in entry.versions}
    return sorted(path for path in (folder / FILES).rglob("*") if path.is_file() and path not in named)


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    with locked(folder, LOCK, "is changing this fleet; wait for its end", PATIENCE):
        yield


def _check_texts(camera: str, note: str) -> None:
    if len(camera) > 64 or len(note) > 1000:
        raise InputError("a camera's name has at most 64 characters, and a note 1000; shorten it")


def _refuse_folder(folder: Path) -> None:
    """Raise InputError for a folder that has files and no index."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a fleet's folder")
    if not folder.is_dir() or (folder / INDEX).is_file():
        return
    # A process that is killed while it makes the fleet leaves these.
    ours = {INDEX, LOCK, FILES}
    if foreign := sorted(p.name for p in folder.iterdir() if p.name not in ours and unfinished(p.name) not in ours):
        raise InputError(f"{folder}: holds {some(foreign)} and no {INDEX}, so it is no fleet; give another folder")


def _refuse_other_base(folder: Path, index: Index, header: Header, file: Path) -> None:
    for camera, entry in index.cameras.items():
        other, _ = read_file(whole_file(folder, camera, entry.version()))
        shared = other.base.keys() & header.base.keys()
        if not shared or other.architecture != header.architecture:
            raise InputError(
                f"{file}: made on another architecture ({_name(header)}) than '{camera}' of this fleet "
                f"({_name(other)}); a fleet has one base"
            )
        if differing := sorted(key for key in shared if other.base[key] != header.base[key]):
            raise InputError(
                f"{file}: made on another base than '{camera}' of this fleet: {len(differing)} of {len(shared)} "
                f"tensors differ, '{differing[0]}' first; a fleet has one base"
            )
        return  # The others were compared when they were added.


def _name(header: Header) -> str:
    return header.architecture.get("timm") or header.architecture.get("class", "unknown")


def _describe(number: int, digest: str, file: Path, header: Header, note: str) -> Version:
    if header.classes is not None:
        check_kinds(header.classes, {}, header.extra, file)
    scores = header.extra.get("scores", {})
    settings = file.parent / CONFIG
    return Version(
        number=number,
        sha256=digest,
        bytes=file.stat().st_size,
        added=_now(),
        note=note,
        classes=header.classes,
        task=str(header.extra.get("task", "")),
        scores={str(key): float(value) for key, value in scores.items()} if isinstance(scores, dict) else {},
        data=load_config(settings).model_dump(mode="json")["data"] if settings.is_file() else {},
        method=header.config.method,
        rank=max((int(layer["rank"]) for layer in header.layers.values()), default=0),
    )


def _change(what: Literal["add", "rollback"], camera: str, version: int, before: int, note: str) -> Change:
    return Change(
        when=_now(),
        who=f"{_user()}@{socket.gethostname()}",
        what=what,
        camera=camera,
        version=version,
        before=before,
        note=note,
    )


def _replace(folder: Path, index: Index, camera: str, entry: Entry, change: Change) -> None:
    write_index(folder, Index(cameras={**index.cameras, camera: entry}, audit=[*index.audit, change]))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
