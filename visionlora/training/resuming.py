"""What a stopped run may go on with: which settings may be others, and whether the data are the same."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from visionlora.errors import InputError, some
from visionlora.sections import RunConfig
from visionlora.tasks.base import SetUp, Task
from visionlora.tasks.protocols import Labelled

MAY_CHANGE = (
    "out",
    *("train.lr", "train.head_lr", "train.epochs", "train.patience", "train.max_skipped_steps", "train.max_unreadable"),
    "train.cache_limit",
    *("train.log_every", "train.checkpoint_every", "train.device", "train.devices"),
    *("train.shard_base", "data.workers"),
    *("data.root", "data.csv", "data.annotations", "data.val_annotations", "data.images", "data.masks", "data.classes"),
    "data.frames",
    "model.checkpoint",
)
"""Settings that may be others when a run goes on (docs/runs.md). Paths may, for what lies there is compared."""

_PARTS = {"train": "training", "val": "validation", "retain": "retained"}
_KNOWN_BY = {"images": "another number of images", "paths": "other files", "labels": "other labels"}


def changed_settings(before: RunConfig, now: RunConfig) -> list[str]:
    """Settings that are others now and may be, each with both values.

    Raises:
        InputError: one may not.
    """
    old, new = _flat(before), _flat(now)
    changed = {key: f"{key} ({old.get(key)!r}, now {new[key]!r})" for key in new if old.get(key) != new[key]}
    if fixed := [text for key, text in changed.items() if key not in MAY_CHANGE]:
        raise InputError(
            f"out {now.out}: can't resume with other settings: {some(fixed, 3)}; bring them back, or train into "
            "another folder (docs/runs.md lists what may change)"
        )
    return [text for key, text in changed.items() if key != "out"]


def fixed_settings(config: RunConfig) -> dict[str, object]:
    """The settings that may not change while a run goes on, nor differ between its processes."""
    return {key: value for key, value in _flat(config).items() if key not in MAY_CHANGE}


def data_fingerprint(task: Task, setup: SetUp) -> dict[str, Any]:
    """What a run's data are known by again: classes, and of each part the number of images, their paths and labels.

    Paths are relative to the folder that all of a part's images have in common, so that a data set may be moved. What
    the image files hold is not read.
    """
    parts: dict[str, Labelled | None] = {"train": setup.train, "val": setup.val}
    return {"classes": list(setup.classes)} | {
        name: part_fingerprint(task, data) for name, data in parts.items() if data is not None
    }


def part_fingerprint(task: Task, data: Labelled) -> dict[str, Any]:
    """Of one part, likewise."""
    return {
        "images": len(data),
        "paths": _digest(_relative(task.files(data))),
        "labels": _digest(task.truth(data)),
    }


def refuse_other_data(before: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Raise InputError, which names the first difference, unless both fingerprints are of the same data."""
    old, new = before["classes"], now["classes"]
    if old != new:
        gone, come = [name for name in old if name not in new], [name for name in new if name not in old]
        told = [f"{some(gone, 3)} gone"] * bool(gone) + [f"{some(come, 3)} new"] * bool(come)
        raise _other(where, f"other classes ({', '.join(told) or 'in another order'})")
    for part, called in _PARTS.items():
        if part not in before or part not in now:
            continue
        for key, what in _KNOWN_BY.items():
            if before[part][key] != now[part][key]:
                numbers = f" ({before[part][key]}, now {now[part][key]})" if key == "images" else ""
                raise _other(where, f"{what}{numbers} in the {called} part")


def _other(where: Path, what: str) -> InputError:
    return InputError(
        f"{where}: the run began with other data, and now there are {what}; bring them back, or train into another "
        "folder"
    )


def _relative(paths: Iterable[Path]) -> list[str]:
    whole = [path.absolute() for path in paths]
    common = os.path.commonpath({str(path.parent) for path in whole}) if whole else ""
    return [path.as_posix()[len(common) :].lstrip("/") for path in whole]


def _digest(values: Iterable[Any]) -> str:
    """SHA-256 of plain values, as Python writes them."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value).encode() + b"\n")
    return digest.hexdigest()


def _flat(config: RunConfig) -> dict[str, object]:
    flat: dict[str, object] = {}
    for section, values in config.model_dump(mode="json").items():
        flat |= (
            {f"{section}.{key}": value for key, value in values.items()}
            if isinstance(values, dict)
            else {section: values}
        )
    return flat
