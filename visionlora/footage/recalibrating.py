"""An adapter fitted to a new camera without labels: BatchNorm statistics of its frames, in a file of its own."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionlora.adapters.recalibration import Recalibration, recalibrate
from visionlora.adapters.saving import save_adapter
from visionlora.data.picture_statistics import MOST, PictureStatistics
from visionlora.errors import InputError
from visionlora.tasks.base import Task
from visionlora.tasks.evaluation import evaluation_copy, score
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Labelled, Scores
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import PICTURES

FRAMES = 256
"""Frames that are measured at most, taken evenly."""
_BATCH = 16


@dataclass(frozen=True)
class Refitted:
    """What came of it.

    Attributes:
        measured: on how many frames, in how many layers.
        name: of the score that decides; empty without labelled images.
        before, after: all scores on these.
    """

    measured: Recalibration
    name: str = ""
    before: Scores | None = None
    after: Scores | None = None


def recalibrate_on_footage(
    trained: Trained,
    frames: Callable[[], Iterator[np.ndarray]],
    count: int,
    out: Path,
    labelled: Labelled | None = None,
    device: torch.device | None = None,
) -> Refitted:
    """Measure BatchNorm anew on frames, and write the adapter with it; nothing is written where scores fall.

    Args:
        trained: with the adapter on its model, not merged.
        frames: gives all frames, (H, W, 3) uint8 RGB; called once for the model and once for what they look like.
        count: how many there are; ``FRAMES`` are taken.
        out: the .safetensors file to write.
        labelled: images of the new camera with the truth about them, to score the model before and after.
        device: by default the CPU.

    Raises:
        InputError: the model has no BatchNorm that measures, or no adapter; there is no frame; or the labelled images'
            first score falls.
    """
    task, device = task_of(trained.task), device or torch.device("cpu")
    trained.model.to(device)
    before = None if labelled is None else _scored(trained, labelled, device)
    measured = recalibrate(trained.model, _batches(task, trained, _some(frames(), count, FRAMES), device))
    refitted = Refitted(measured)
    if labelled is not None and before is not None:
        name, old = before
        _, new = _scored(trained, labelled, device)
        refitted = Refitted(measured, name, old, new)
        if new.get(name, 0.0) < old.get(name, 0.0):
            raise InputError(
                f"{out}: not written, for on {len(labelled)} labelled images {name} falls from {old[name]:.4f} to "
                f"{new.get(name, 0.0):.4f}; label some frames and train on them"
            )
    pictures = PictureStatistics.of(_some(frames(), count, MOST))
    about: dict[str, Any] = {key: value for key, value in trained.about.items() if key not in ("scores", PICTURES)}
    about["scores"] = refitted.after or {}  # those that the run measured were of another model
    if pictures is not None:
        about[PICTURES] = pictures.to_dict()
    trained.model.cpu()
    save_adapter(
        trained.model, out, classes=trained.classes, preprocessing=trained.preprocessing.to_dict(), extra=about
    )
    return refitted


def _scored(trained: Trained, labelled: Labelled, device: torch.device) -> tuple[str, Scores]:
    """The name of the score that decides, and all of them."""
    metrics = score(trained.with_model(evaluation_copy(trained.model)), labelled, device=device)
    return metrics.names[0], metrics.scores()


def _some(frames: Iterable[np.ndarray], count: int, most: int) -> Iterator[np.ndarray]:
    """About so many of the frames, evenly taken."""
    step = max(1, count // most)
    return (frame for place, frame in enumerate(frames) if place % step == 0 and place // step < most)


def _batches(task: Task, trained: Trained, frames: Iterable[np.ndarray], device: torch.device) -> Iterator[Any]:
    """What the model takes, of frames of one size at a time; a single one at the end goes with the batch before."""
    waiting: list[Tensor] = []
    for frame in frames:
        shown = task.to_input(frame, trained.preprocessing).to(device)
        if waiting and (shown.shape != waiting[0].shape or len(waiting) >= 2 * _BATCH):
            taken = len(waiting) if shown.shape != waiting[0].shape else _BATCH
            yield _batch(task, waiting[:taken])
            waiting = waiting[taken:]
        waiting.append(shown)
    if waiting:
        yield _batch(task, waiting)


def _batch(task: Task, images: list[Tensor]) -> Any:
    return (images,) if task.takes_lists else torch.stack(images)
