"""The config of each run of a study."""

from pathlib import Path

from visionlora.sections import RunConfig
from visionlora.studies.plan import Shots
from visionlora.studies.search import Rates


def with_data(config: RunConfig, shots: Shots, hold_out: bool) -> RunConfig:
    """The config with so many labels, a part of the training images held out or not."""
    return config.model_copy(update={"data": config.data.model_copy(update={"shots": shots, "hold_out": hold_out})})


def config_of_run(config: RunConfig, out: Path, epochs: int, seed: int, rates: Rates, every: int) -> RunConfig:
    """The config of a run: with these learning rates, and the warm-up's share of all epochs as it was."""
    train = config.train
    changed = {
        "epochs": epochs,
        "warmup_epochs": train.warmup_epochs / train.epochs * epochs,
        "lr": rates.lr,
        "head_lr": rates.head_lr,
        "seed": seed,
        "evaluate_every": every,
        "patience": 0,
        "keep": "last",
        "retain": None,
        "cache_features": False,
    }
    return config.model_copy(update={"train": train.model_copy(update=changed), "out": out})
