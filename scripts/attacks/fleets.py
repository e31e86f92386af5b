"""A fleet's folder whose writers are killed at random moments, while they add versions and roll back."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path

from visionlora.checksums import file_digest
from visionlora.fleet.index import INDEX, read_index
from visionlora.fleet.registry import add, check, rollback

CAMERAS = ("gate", "yard")


def attack_fleet(folder: Path, adapters: Sequence[Path], kills: int, seed: int, longest: float = 0.3) -> list[str]:
    """Kill so many writers with SIGKILL, and look at what is left after each.

    Args:
        folder: a new fleet's.
        adapters: two files or more, over one base.
        kills: how many writers.
        seed: of the moments.
        longest: seconds from a writer's first change to its end.

    Returns:
        a line for each that left a half state.
    """
    add(folder, CAMERAS[0], adapters[0])
    context, generator, harm = multiprocessing.get_context("fork"), random.Random(seed), []
    for number in range(kills):
        seen = len(read_index(folder).audit)
        moment = generator.uniform(0.0, longest)
        begun = context.Event()
        writer = context.Process(target=_write, args=(folder, adapters, number, None, begun))
        writer.start()
        begun.wait()
        time.sleep(moment)
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        if writer.exitcode != -signal.SIGKILL:
            harm.append(f"kill {number}: the writer had ended with {writer.exitcode} before")
        harm += [f"kill {number} after {moment:.3f} s: {fault}" for fault in faults(folder, seen)]
    return harm


def faults(folder: Path, seen: int = 0) -> list[str]:
    """What is not as it must be in a fleet: files, and the audit of changes, ``seen`` of which were there before."""
    found = check(folder)
    index = read_index(folder)
    current: dict[str, int] = {}
    added: dict[str, int] = {}
    for change in index.audit:
        if change.before != current.get(change.camera, 0):
            found.append(f"{change.what} of {change.camera} came from {change.before}")
        current[change.camera] = change.version
        added[change.camera] = added.get(change.camera, 0) + (change.what == "add")
    if current != {camera: entry.current for camera, entry in index.cameras.items()}:
        found.append(f"the audit says {current}")
    if added != {camera: len(entry.versions) for camera, entry in index.cameras.items()}:
        found.append(f"the audit says {added} versions")
    if len(index.audit) < seen:
        found.append(f"of {seen} changes {len(index.audit)} are left")
    return found


def two_writers(folder: Path, adapters: Sequence[Path], changes: int) -> list[str]:
    """Two processes change the fleet at once, so often each; what was lost or is wrong then."""
    before = len(read_index(folder).audit) if (folder / INDEX).is_file() else 0
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(folder, adapters, number, changes)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [f"a writer ended with {writer.exitcode}" for writer in writers if writer.exitcode]
    made = len(read_index(folder).audit) - before
    return [*found, *([] if made == 2 * changes else [f"{made} changes of {2 * changes}"]), *faults(folder)]


def _write(
    folder: Path, adapters: Sequence[Path], number: int, changes: int | None = None, begun: Event | None = None
) -> None:
    """Add versions of a camera and roll back, in turn; for ever without ``changes``. Tells of the first."""
    done, camera = 0, CAMERAS[number % len(CAMERAS)]
    while done != changes:
        index = read_index(folder) if (folder / INDEX).is_file() else None
        entry = None if index is None else index.cameras.get(camera)
        if done % 3 == 2 and entry is not None and entry.current > 1:
            rollback(folder, camera)
        else:
            # Not the one that is current, which would be refused.
            at = 0 if entry is None else len(entry.versions)
            names = [adapters[(at + step) % len(adapters)] for step in range(len(adapters))]
            current = "" if entry is None else entry.version().sha256
            add(folder, camera, next(path for path in names if file_digest(path) != current))
        done += 1
        if begun is not None:
            begun.set()
