"""The run folder: what lies where, and who may write into it."""

import shutil
from pathlib import Path

from visionlora.config import dump_config, load_config
from visionlora.errors import InputError, some
from visionlora.files import write_atomic
from visionlora.sections import RunConfig
from visionlora.tasks.trained import ADAPTER, MODEL

CONFIG, METRICS, REPORT = "config.yaml", "metrics.jsonl", "report.json"
CHECKPOINTS, EVENTS, FIGURES = "checkpoints", "tensorboard", "figures"
OURS = {ADAPTER, MODEL, CONFIG, METRICS, REPORT, CHECKPOINTS, EVENTS, FIGURES}


def open_folder(config: RunConfig, resume: bool, overwrite: bool) -> Path:
    """Make the run folder ready, and write the resolved config into it.

    Raises:
        InputError: it is not empty and neither ``resume`` nor ``overwrite`` says what to do; or it holds
            another run, or files that no run wrote.
    """
    folder = config.out
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"out {folder}: {path} is a file; give a folder")
    there = [path.name for path in folder.iterdir()] if folder.exists() else []
    if there and resume:
        _check_same(config, folder)
    elif there and overwrite:
        if foreign := sorted(set(there) - OURS):
            raise InputError(f"out {folder}: holds {some(foreign)}, which no run wrote; give another folder")
        for name in there:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif there:
        raise InputError(f"out {folder}: is not empty; give another folder, --resume to go on, or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists():
        text = dump_config(config)
        write_atomic(folder / CONFIG, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return folder


def _check_same(config: RunConfig, folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise InputError(f"out {folder}: holds no {CONFIG}, so there is no run to resume; give another folder")
    before, now = _flat(load_config(folder / CONFIG)), _flat(config)
    different = [f"{key} ({before.get(key)!r}, now {now.get(key)!r})" for key in now if before.get(key) != now[key]]
    different = [entry for entry in different if not entry.startswith("out ")]
    if different:
        raise InputError(f"out {folder}: can't resume with other settings: {some(different, 3)}")


def _flat(config: RunConfig) -> dict[str, object]:
    flat: dict[str, object] = {}
    for section, values in config.model_dump(mode="json").items():
        flat |= (
            {f"{section}.{key}": value for key, value in values.items()}
            if isinstance(values, dict)
            else {section: values}
        )
    return flat
