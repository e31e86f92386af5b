"""``visionlora recalibrate``."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from visionlora.adapters.header import FORMAT
from visionlora.cli.evaluate import config_for
from visionlora.cli.show import print_table, say
from visionlora.cli.sources import Source, count_images, find_sources
from visionlora.cli.videos import say_passed_over
from visionlora.errors import InputError
from visionlora.footage.recalibrating import FRAMES, Refitted, recalibrate_on_footage
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Labelled
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained, read_metadata
from visionlora.training.run import pick_device


def recalibrate(
    run: Path,
    footage: list[Path],
    out: Path,
    overrides: list[str],
    part: str,
    checkpoint: Path | None,
    device: str,
    skip_unreadable: bool,
    download: bool,
) -> int:
    """Write an adapter whose BatchNorm was measured on the footage, and say what it changes; the exit code."""
    if out.exists():
        raise InputError(f"--out {out}: is there already; give another name")
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: let the name end in .safetensors")
    trained = load_trained(run, checkpoint, merged=False, download=download)
    if read_metadata(trained.path).get("format") != FORMAT:
        raise InputError(f"{trained.path}: every weight of this model was trained; only adapters are recalibrated")
    labelled = _labelled(run, trained, overrides, part) if overrides or part else None
    sources, refused = find_sources(footage, 1, skip_unreadable)
    count = count_images(sources)
    if count is None:
        count = sum(1 for _ in _frames(sources))
    place = pick_device(device)
    found = recalibrate_on_footage(trained, lambda: _frames(sources), count, out, labelled, place)
    _tell(found, out, labelled)
    return say_passed_over(refused)


def _frames(sources: list[Source]) -> Iterator[np.ndarray]:
    for source in sources:
        for chunk in source.chunks():
            yield from (shot.image for shot in chunk)


def _labelled(run: Path, trained: Trained, overrides: list[str], part: str) -> Labelled:
    config = config_for(run, trained, overrides)
    if config.task != trained.task:
        raise InputError(f"{run} was trained for {trained.task}, and the settings are for {config.task}")
    chosen: Labelled = task_of(trained.task).images(config, part, trained.classes).data
    if not len(chosen):
        raise InputError("no labelled image is left: none of them can be read")
    return chosen


def _tell(found: Refitted, out: Path, labelled: Labelled | None) -> None:
    say(f"{found.measured} (at most {FRAMES} are taken); written as {out}")
    if found.before is None or found.after is None or labelled is None:
        say("not checked on labelled frames; --part or data.root=... name some, and it is refused where it harms them")
        return
    after = found.after
    rows = [
        [name, f"{value:.4f}", f"{after[name]:.4f}" if name in after else "-"] for name, value in found.before.items()
    ]
    print_table(["score", "before", "recalibrated"], rows, title=f"on {len(labelled)} labelled images")
