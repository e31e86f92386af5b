"""The run folder: what lies where, and who may write into it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionlora.config import dump_config, load_config
from visionlora.errors import InputError, some
from visionlora.files import unfinished, write_atomic
from visionlora.sections import RunConfig
from visionlora.tasks.trained import ADAPTER, CONFIG, MODEL
from visionlora.training.lock import LOCK, locked
from visionlora.training.resuming import changed_settings

METRICS, REPORT = "metrics.jsonl", "report.json"
CHECKPOINTS, EVENTS, FIGURES = "checkpoints", "tensorboard", "figures"
FEATURES = "features"
PEFT = "peft"
"""Of a comparison's run with PEFT's layers: their folder."""
OURS = {ADAPTER, MODEL, PEFT, FEATURES, CONFIG, METRICS, REPORT, CHECKPOINTS, EVENTS, FIGURES, LOCK}


@contextmanager
def open_folder(config: RunConfig, resume: bool, overwrite: bool) -> Iterator[str]:
    """Make the run folder ready, and keep other processes out meanwhile.

    What is yielded is empty, or a line that says why they can't be kept out.

    Raises:
        InputError: it is not empty and neither ``resume`` nor ``overwrite`` says what to do; it holds another run,
            or files that no run wrote; or another process trains in it.
    """
    folder = config.out
    _refuse(config, resume, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as note:
        _refuse(config, resume, overwrite)  # another run may have begun, or ended, meanwhile
        _clear(folder, everything=overwrite and not resume)
        yield note


def write_config(config: RunConfig) -> None:
    """The resolved config, into its run folder; only where it says something new."""
    path, text = config.out / CONFIG, dump_config(config)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _refuse(config: RunConfig, resume: bool, overwrite: bool) -> None:
    folder = config.out
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"out {folder}: {path} is a file; give a folder")
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    there = {name for name in names if name != LOCK and unfinished(name) not in OURS}
    if there and resume:
        changed_settings(settings_before(folder), config)
    elif there and overwrite:
        if foreign := sorted(there - OURS):
            raise InputError(f"out {folder}: holds {some(foreign)}, which no run wrote; give another folder")
    elif there:
        raise InputError(f"out {folder}: is not empty; give another folder, --resume to go on, or --overwrite")


def _clear(folder: Path, everything: bool) -> None:
    """Remove the whole run, or only what a killed process left half-written."""
    for path in folder.iterdir():
        if path.name != LOCK and (everything or unfinished(path.name) in OURS):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for inner in (folder / CHECKPOINTS, folder / FIGURES):
        for path in inner.iterdir() if inner.is_dir() else ():
            if unfinished(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def settings_before(folder: Path) -> RunConfig:
    """The config of the run that a folder holds. InputError if it holds none."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"out {folder}: holds no {CONFIG}, so there is no run to resume; give another folder")
    return load_config(folder / CONFIG)
