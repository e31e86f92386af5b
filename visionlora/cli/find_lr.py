"""``visionlora find-lr``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionlora.cli.configs import read_config
from visionlora.cli.show import check_out, progress, say
from visionlora.errors import InputError
from visionlora.files import write_atomic
from visionlora.training.started import started_processes

if TYPE_CHECKING:
    from visionlora.training.lr_finder import Found


def find_lr(config: str, overrides: Sequence[str], draw: Path | None) -> None:
    """Print a learning rate for a run, in one line; write nothing but the drawing that was asked for."""
    if started_processes() > 1:
        raise InputError("find-lr is for one process; start it without torchrun")
    settings = read_config(config, overrides)
    check_out(draw)

    from visionlora.training.lr_finder import STEPS
    from visionlora.training.lr_finder import find_lr as find
    from visionlora.training.run import ready_to_try

    state = ready_to_try(settings, say)
    with progress("learning rates", STEPS) as on_step:
        found = find(state, on_step)
    if draw is not None:
        _draw(found, draw)
    say(found)


def _draw(found: "Found", path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.rates, found.losses)
    axes.axvline(found.lr, linestyle="--", color="tab:orange", label=f"train.lr={found.lr:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))
