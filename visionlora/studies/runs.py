"""One run of a comparison, and what it came to, as a plain file."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from visionlora.files import write_json
from visionlora.plain_json import read_json
from visionlora.sections import RunConfig
from visionlora.studies.memory import peak_of_process, restart_peak
from visionlora.studies.methods import Variant
from visionlora.studies.peft import train_with_peft
from visionlora.studies.search import Quality
from visionlora.tasks.memory import free_memory
from visionlora.tasks.trained import ADAPTER, CONFIG, MODEL
from visionlora.training.checkpoint import checkpoints
from visionlora.training.concluding import Result
from visionlora.training.folder import CHECKPOINTS, METRICS, PEFT
from visionlora.training.loop import DivergedError
from visionlora.training.run import train

STEP_PARTS = ("data", "forward", "backward", "optimizer")
"""What of a run's time is training."""
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        score: the last epoch's, as the run's report has it; None where it diverged, or nothing can be measured by.
        loss: likewise, on the images that it was scored on; 0 where the task has none.
        curve: (optimizer steps, score) at each evaluation.
        trainable, file_bytes: parameters that trained, and the size of their file.
        peak_bytes: the most memory the process had meanwhile; 0 where it is not known.
        step_seconds: of training, evaluations and checkpoints not counted.
        per_class: F1, AP or IoU of each class.
        failed: why there is no score.
    """

    score: float | None
    loss: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    trainable: int = 0
    file_bytes: int = 0
    peak_bytes: int = 0
    step_seconds: float = 0.0
    seconds: float = 0.0
    per_class: dict[str, float] = field(default_factory=dict)
    failed: str = ""

    @property
    def quality(self) -> Quality | None:
        """For a search."""
        return None if self.score is None else (self.score, -self.loss)


def kept(path: Path, make: Callable[[], Kept], read: Callable[[dict[str, Any]], Kept]) -> Kept:
    """A dataclass from its file, or else made and written there, so that it is made once."""
    if path.is_file():
        return read(read_json(path.read_text(encoding="utf-8")))
    made = make()
    write_json(path, asdict(made))  # type: ignore[call-overload]
    return made


def read_outcome(values: dict[str, Any]) -> Outcome:
    """From its file."""
    return Outcome(**{**values, "curve": [(int(step), float(score)) for step, score in values["curve"]]})


def run_cell(
    config: RunConfig,
    variant: Variant,
    file: Path,
    score: str,
    step_seconds: float,
    console: Console,
    weights: bool = True,
) -> Outcome:
    """Train, or go on, as ``config`` says, and write what it came to; or read that where it has been written.

    Args:
        config: of the run; its folder is new, or was begun by the same config.
        variant: the method.
        file: for what it came to. The run's checkpoints are removed when it is there.
        score: the one that is compared.
        step_seconds: to take where the run's own steps were all in an earlier start.
        console: for the run's bar.
        weights: keep what it trained.

    Raises:
        InputError: as ``train`` does, but for a run that diverged.
        visionlora.stopping.Interrupted: the run was asked to stop.
    """
    outcome = kept(file, lambda: _run(config, variant, score, step_seconds, console), read_outcome)
    with suppress(OSError):
        shutil.rmtree(config.out / CHECKPOINTS)
    if not weights:
        for name in (ADAPTER, MODEL):
            (config.out / name).unlink(missing_ok=True)
        shutil.rmtree(config.out / PEFT, ignore_errors=True)
    return outcome


def _run(config: RunConfig, variant: Variant, score: str, step_seconds: float, console: Console) -> Outcome:
    begun = (config.out / CONFIG).is_file()
    done = [int(path.name.split("-")[1]) for path in checkpoints(config.out / CHECKPOINTS)]
    free_memory()
    known = restart_peak()
    try:
        if variant.peft:
            result = train_with_peft(config, resume=begun, overwrite=not begun, console=console)
        else:
            result = train(config, resume=begun, overwrite=not begun, console=console, quiet=True)
    except DivergedError as error:
        return Outcome(None, failed=str(error))
    curve = _curve(config.out, score)
    steps = _steps(config.out) - max(done, default=0)
    own = sum(result.spent.get(part, 0.0) for part in STEP_PARTS) / steps if steps > 0 else step_seconds
    peak = peak_of_process() if known else 0
    return Outcome(
        score=result.scores.get(score),
        loss=result.scores.get("loss", 0.0),
        curve=curve,
        trainable=result.trainable,
        file_bytes=result.saved_bytes,
        peak_bytes=peak,
        step_seconds=own,
        seconds=result.seconds,
        per_class=_per_class(result),
    )


def _per_class(result: Result) -> dict[str, float]:
    return {
        name: values["f1"] if "f1" in values else next(iter(values.values()))
        for name, values in result.per_class.items()
        if values
    }


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]


def _curve(folder: Path, score: str) -> list[tuple[int, float]]:
    return [(line["step"], line[score]) for line in _lines(folder) if line["kind"] == "val" and score in line]


def _steps(folder: Path) -> int:
    return max((line["step"] for line in _lines(folder)), default=0)
