"""The config of each run of a study."""

from pathlib import Path

from visionlora.sections import RunConfig
from visionlora.studies.plan import Shots
from visionlora.studies.search import Rates


def with_data(config: RunConfig, shots: Shots, hold_out: bool) -> RunConfig:
    """The config with so many labels, a part of the training images held out or not."""
    return config.model_copy(update={"data": config.data.model_copy(update={"shots": shots, "hold_out": hold_out})})


def rates_of(config: RunConfig, factors: Rates) -> Rates:
    """Learning rates: the config's, times these, to six digits."""
    lr, head_lr = config.train.lr * factors.lr, config.train.head_lr * factors.head_lr
    return Rates(float(f"{lr:.6g}"), float(f"{head_lr:.6g}"))


def config_of_run(config: RunConfig, out: Path, epochs: int, seed: int, factors: Rates, every: int) -> RunConfig:
    """The config of a run: rates times ``factors``, and the warm-up's share of all epochs as it was."""
    train, rates = config.train, rates_of(config, factors)
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
