"""``visionlora train``, as one process or as one of several."""

from collections.abc import Sequence

from visionlora.cli.configs import read_config
from visionlora.errors import InputError
from visionlora.training.started import started_processes


def train(config: str, overrides: Sequence[str], resume: bool, overwrite: bool) -> int:
    """Train as the options say; the exit code."""
    if started_processes() == 1:
        return _train(config, overrides, resume, overwrite)

    from visionlora.training.distributed import joined

    with joined():  # before anything is read, so that what all of them find wrong is told once
        return _train(config, overrides, resume, overwrite)


def _train(config: str, overrides: Sequence[str], resume: bool, overwrite: bool) -> int:
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    settings = read_config(config, overrides)

    from visionlora.training.launch import launch, wants_launch
    from visionlora.training.run import train as run_training

    if wants_launch(settings.train):
        return launch(settings.train)
    run_training(settings, resume=resume, overwrite=overwrite)
    return 0
