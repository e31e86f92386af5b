"""Whether the exported model scores on the run's validation images what the run reported."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from visionlora.data.annotations.choosing import values_of
from visionlora.errors import InputError, some
from visionlora.exports.source import Source

TOLERANCE = 0.005
"""Of a score: half precision, or one image of two hundred."""
CAMERA = "camera"

OnBatch = Callable[[int], None]
"""To be called with the number of images after each batch."""
Progress = Callable[[str, int | None], AbstractContextManager[OnBatch]]
"""Of what is going to be done and how many there are, a context that gives what to call with numbers of images done."""


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


@contextmanager
def silent(description: str, total: int | None) -> Iterator[OnBatch]:
    """No progress is shown."""
    del description, total
    yield lambda _: None


def groups_of(data: Any, by: str | None) -> tuple[str, dict[str, Any]]:
    """The field that makes groups, and the images with each of its values.

    Args:
        data: the run's validation images, as the task reads them; None if they are not at hand.
        by: their field; None for ``camera`` if they have it.

    Raises:
        InputError: they have no such field.
    """
    images = getattr(data, "images", [])
    if by is None and not any(CAMERA in image.fields for image in images):
        return CAMERA, {}
    if data is None:
        raise InputError(f"--by {by}: the run's validation images are not at hand")
    if not images:
        raise InputError(f"--by {by}: a classifier's images have no fields; leave it out")
    name = by or CAMERA
    values = values_of(data, name)
    return name, {
        value: data.subset(i for i, image in enumerate(images) if str(image.fields.get(name)) == value)
        for value in values
    }


def check_scores(
    source: Source, kind: Any, model: nn.Module, data: Any, groups: tuple[str, dict[str, Any]], progress: Progress
) -> Scores | None:
    """Score the exported model, as a whole and in groups; None if the images have nothing to score.

    Args:
        source: what was exported.
        kind: the task's module of this room.
        model: the exported one, with the plain model's interface.
        data: the run's validation images, as ``kind`` reads them.
        groups: see `groups_of`.
        progress: see `Progress`.

    Raises:
        InputError: it scores otherwise than the report says, and than the adapted model does now.
    """
    by, parts = groups
    found = _score(source, kind, model, data, progress, "scoring")
    if not found:
        return None
    reported, whose = (source.report or {}).get("scores") or {}, "the run's report"
    if not _equal(found, reported):
        # The images may have changed since, or the run used half precision.
        reported, whose = _score(source, kind, source.reference, data, progress, "scoring the adapted model"), "adapted"
    if not _equal(found, reported):
        differing = [f"{name} {found[name]:.4f}, not {reported[name]:.4f}" for name in found if name in reported]
        raise InputError(
            f"the exported model scores {some(differing, 2)} on the run's {len(data)} validation images; "
            f"nothing was kept, take another format"
        )
    scored = {
        name: (len(part), _score(source, kind, model, part, progress, f"scoring {name}"))
        for name, part in parts.items()
    }
    return Scores(found, reported, whose, len(data), scored, by)


def _score(source: Source, kind: Any, model: nn.Module, data: Any, progress: Progress, what: str) -> dict[str, float]:
    trained = replace(source.trained, built=replace(source.trained.built, model=model))
    # A detector counts tiles, of which nobody knows the number.
    total = None if getattr(trained.preprocessing, "tile", None) else len(data)
    with progress(what, total) as advance:
        scores: dict[str, float] = kind.score(trained, data, source.config, advance)
    return scores


def _equal(found: dict[str, float], reported: dict[str, float]) -> bool:
    if found.keys() != reported.keys():
        return False
    pairs = [(found[name], reported[name]) for name in found]
    return all(abs(a - b) <= TOLERANCE or (math.isnan(a) and math.isnan(b)) for a, b in pairs)
