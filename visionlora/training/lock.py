"""One process at a time in a folder."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from visionlora.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
_TRAINS = "is training in it; wait for its end, stop it, or give another folder"
_PAUSE = 0.05
"""Seconds between two tries."""

_HELD: set[int] = set()
"""Descriptors of this process's locks. A child that shared one would hold the lock after this process's death."""


def _close_in_child() -> None:
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def locked(folder: Path, name: str = LOCK, busy: str = _TRAINS, patience: float = 0.0) -> Iterator[str]:
    """Hold the folder's lock file, and remove it afterwards; the system frees the lock of a process that dies.

    What is yielded is empty, or says in a line why the folder could not be locked: not every file system can.

    Args:
        folder: that is locked; by default a run's.
        name: of the lock file.
        busy: what another process does in it, and what to do then.
        patience: seconds to wait for another process's end.

    Raises:
        InputError: another process holds it, which is named.
    """
    path = folder / name
    descriptor, note = _lock(path, busy, time.monotonic() + patience)
    _HELD.add(descriptor)
    try:
        yield note
    finally:
        # Removed while it is held: whoever opened this file meanwhile finds that it is no longer the folder's.
        with suppress(OSError):
            path.unlink()
        _HELD.discard(descriptor)
        with suppress(OSError):  # closed already, where this is a forked child
            os.close(descriptor)


def _lock(path: Path, busy: str, until: float) -> tuple[int, str]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            note = _try(descriptor, path, busy, until)
            if _is_there(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return descriptor, note
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_there(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of this name: the process that held it before removes it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _try(descriptor: int, path: Path, busy: str, until: float) -> str:
    folder = path.parent
    if fcntl is None:
        return f"{folder} can't be locked on this system: see to it that no other process writes into it"
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < until:
                time.sleep(_PAUSE)
                continue
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise InputError(f"out {folder}: {holder or 'another process'} {busy}") from error
        except OSError as error:
            reason = error.strerror or "unknown reason"
            return f"{folder} can't be locked ({reason}): see to it that no other process writes into it"
        return ""
