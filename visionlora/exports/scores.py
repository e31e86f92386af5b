"""Whether the exported model scores on the run's validation images what the run reported."""

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from visionlora.data.annotations.choosing import values_of
from visionlora.errors import InputError, some
from visionlora.exports.source import Source
from visionlora.tasks.base import Task
from visionlora.tasks.evaluation import Progress, score
from visionlora.tasks.protocols import Labelled

TOLERANCE = 0.005
"""Of a score: half precision, or one image of two hundred."""
CAMERA = "camera"


@dataclass(frozen=True)
class Scores:
    """What was scored.

    Attributes:
        exported: score -> value.
        against: the same of the run's report, or of the adapted model where the report's differ.
        whose: in words, which of the two.
        images: how many there are.
        groups: for each value of the images' field, its images and the exported model's scores on them.
        by: that field.
    """

    exported: dict[str, float]
    against: dict[str, float]
    whose: str
    images: int
    groups: dict[str, tuple[int, dict[str, float]]] = field(default_factory=dict)
    by: str = ""


def groups_of(task: Task, data: Any, by: str | None) -> tuple[str, dict[str, Any]]:
    """The field that makes groups, and the images with each of its values.

    Args:
        task: the model's.
        data: the run's validation images, as the task reads them; None if they are not at hand.
        by: their field; None for ``camera`` if they have it.

    Raises:
        InputError: they have no such field.
    """
    fields = task.fields(data) if data is not None else []
    if by is None and not any(CAMERA in one for one in fields):
        return CAMERA, {}
    if data is None:
        raise InputError(f"--by {by}: the run's validation images are not at hand")
    if not fields:
        raise InputError(f"--by {by}: a {task.noun}'s images have no fields; leave it out")
    name = by or CAMERA
    values = values_of(data, name)
    return name, {
        value: data.subset(i for i, one in enumerate(fields) if str(one.get(name)) == value) for value in values
    }


def check_scores(
    source: Source, model: nn.Module, data: Any, groups: tuple[str, dict[str, Any]], progress: Progress
) -> Scores | None:
    """Score the exported model, as a whole and in groups; None if the images have nothing to score.

    Args:
        source: what was exported.
        model: the exported one, with the plain model's interface.
        data: the run's validation images, as the task reads them.
        groups: see ``groups_of``.
        progress: shows what is being done.

    Raises:
        InputError: it scores otherwise than the report says, and than the adapted model does now.
    """
    by, parts = groups
    found = _score(source, model, data, progress, "scoring")
    if not found:
        return None
    reported, whose = (source.report or {}).get("scores") or {}, "the run's report"
    if not _equal(found, reported):
        # The images may have changed since, or the run used half precision.
        reported, whose = _score(source, source.reference, data, progress, "scoring the adapted model"), "adapted"
    if not _equal(found, reported):
        differing = [f"{name} {found[name]:.4f}, not {reported[name]:.4f}" for name in found if name in reported]
        raise InputError(
            f"the exported model scores {some(differing, 2)} on the run's {len(data)} validation images; "
            f"nothing was kept, take another format"
        )
    scored = {
        name: (len(part), _score(source, model, part, progress, f"scoring {name}")) for name, part in parts.items()
    }
    return Scores(found, reported, whose, len(data), scored, by)


def _score(source: Source, model: nn.Module, data: Labelled, progress: Progress, what: str) -> dict[str, float]:
    assert source.config is not None
    batch_size, workers = source.config.train.batch_size, source.config.data.workers
    trained = source.trained.with_model(model)
    return score(trained, data, batch_size, workers, progress=lambda _, total: progress(what, total)).scores()


def _equal(found: dict[str, float], reported: dict[str, float]) -> bool:
    if found.keys() != reported.keys():
        return False
    pairs = [(found[name], reported[name]) for name in found]
    return all(abs(a - b) <= TOLERANCE or (math.isnan(a) and math.isnan(b)) for a, b in pairs)
