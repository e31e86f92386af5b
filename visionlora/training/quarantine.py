"""Training images that could be read when the run began, and can't be any more."""

from collections.abc import Sequence

from visionlora.data.loading import Key
from visionlora.errors import InputError, some
from visionlora.tasks.protocols import Batch
from visionlora.training.monitor import Monitor
from visionlora.training.state import RunState


class Quarantine:
    """Images that are left out, by name, and how many there may be.

    What could not be read is not tried again in later epochs, so that a run that resumes goes on as one that did not
    stop. It stands in the run's progress.

    Args:
        state: of the run.
        monitor: takes a line about each.
        batches: of an epoch, to know how many images there are.
    """

    def __init__(self, state: RunState, monitor: Monitor, batches: Sequence[Sequence[Key]]) -> None:
        self._state, self._monitor = state, monitor
        self._images = len({index for batch in batches for _, index in batch})

    def without(self, batches: Sequence[Sequence[Key]]) -> list[list[Key]]:
        """The batches of the current epoch without what was unreadable in an earlier one; one may be empty."""
        progress = self._state.progress
        gone = {entry["index"] for entry in progress.unreadable if entry["epoch"] < progress.epoch}
        return [[key for key in batch if key[1] not in gone] for batch in batches]

    def note(self, batch: Batch) -> None:
        """Take note of what could not be read of a batch.

        Raises:
            InputError: so it is, and several processes train, which would not leave out the same.
        """
        progress = self._state.progress
        known = {entry["index"] for entry in progress.unreadable}
        for one in batch.pop("unreadable", ()):
            if self._state.processes.several:
                raise InputError(one.reason)
            if one.index in known:
                continue
            told = any(entry["reason"] == one.reason for entry in progress.unreadable)  # of another tile of the file
            files = self._state.files([[(progress.epoch, one.index)]])
            entry = {"index": one.index, "epoch": progress.epoch, "files": files, "reason": one.reason}
            progress.unreadable.append(entry)
            known.add(one.index)
            if not told:
                self._monitor.unreadable(progress.step, progress.epoch, one.reason)

    def too_many(self) -> str:
        """Why the run must stop; empty as long as there are no more than ``train.max_unreadable`` allows.

        They are forgotten then: a run that goes on reads them again.
        """
        found, share = self._state.progress.unreadable, self._state.train.max_unreadable
        if len(found) <= share * self._images:
            return ""
        lines = some(reasons(found), 3)
        self._state.progress.unreadable = []
        return (
            f"{len(found)} of {self._images} training images can't be read any more, and the share that may be left "
            f"out is train.max_unreadable={share:g}: {lines}; bring them back, and --resume goes on"
        )


def reasons(unreadable: Sequence[dict[str, object]]) -> list[str]:
    """A line for each file."""
    return list(dict.fromkeys(str(entry["reason"]) for entry in unreadable))
