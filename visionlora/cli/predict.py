"""``visionlora predict``."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from visionlora.cli.show import check_folder, check_out, print_table, progress, say
from visionlora.cli.sources import count_images, drawing, find_sources, refuse_twins
from visionlora.cli.videos import say_passed_over
from visionlora.errors import InputError, some
from visionlora.exports.opening import open_trained
from visionlora.files import growing_json
from visionlora.fleet.index import read_index
from visionlora.fleet.registry import adapter_file
from visionlora.tasks.base import PredictOptions
from visionlora.tasks.registry import TASKS, task_of
from visionlora.training.run import pick_device

_SHOWN = 40
"""Rows of the table."""


@dataclass(frozen=True)
class Outputs:
    """Where predictions go.

    Attributes:
        out: a file for all of them, as JSON; ``image_id`` of a video's frame is its path with ``#`` and the number.
        draw: an empty or absent folder for images, and videos, with what was found.
        masks: another for a class of each pixel, as PNG; of a video it gets a folder with one for each frame.
        labels: another for a data set: the images, and what was found as their labels.
        form: of its labels, ``coco`` or ``yolo``.
    """

    out: Path | None = None
    draw: Path | None = None
    masks: Path | None = None
    labels: Path | None = None
    form: str = "coco"

    def folders(self) -> dict[str, tuple[Path, str]]:
        """By option, the folders that are asked for, and what they get of each image."""
        wanted = {"--draw": (self.draw, "drawing"), "--masks": (self.masks, "mask"), "--labels": (self.labels, "image")}
        return {option: (folder, what) for option, (folder, what) in wanted.items() if folder is not None}


def model_and_images(run: Path, images: list[Path], fleet: Path | None, camera: str) -> tuple[Path, list[Path]]:
    """What to predict with, and on: with a fleet the camera's current adapter, and all the paths that were given.

    Raises:
        InputError: the one is given without the other, the fleet has no such camera, or there are no images.
    """
    if fleet is None and camera:
        raise InputError(f"--camera {camera}: says whose adapter of a fleet; give its folder with --fleet")
    if fleet is None:
        if not images:
            raise InputError(f"{run}: no images to predict on; give files or folders after it")
        return run, images
    if not camera:
        raise InputError(
            f"--fleet {fleet}: say whose adapter with --camera; there are {some(read_index(fleet).cameras)}"
        )
    return adapter_file(fleet, camera), [run, *images]


def predict(
    run: Path,
    paths: list[Path],
    outputs: Outputs,
    options: PredictOptions,
    given: list[str],
    every: int,
    checkpoint: Path | None,
    device: str,
    skip_unreadable: bool,
    download: bool,
) -> int:
    """Print a table of what was found, and write results, drawings and labels if asked.

    Args:
        run: a run folder or an exported model.
        paths: images, videos, and folders of images.
        outputs: what is written.
        options: for the model's task.
        given: the options that were given of those that not all tasks take.
        every: take each n-th frame of a video.
        checkpoint: the base's weights, if they have moved.
        device: to compute on.
        skip_unreadable: leave out images that can't be read.
        download: fetch the base from the hub that a lone file names.

    Returns:
        the exit code: 1 if a video among several files was passed over.
    """
    trained = open_trained(run, checkpoint, download)
    task = task_of(trained.task)
    _refuse_options(run, trained.task, given)
    check_out(outputs.out)
    for option, (folder, _) in outputs.folders().items():
        check_folder(folder, option)
    sources, refused = find_sources(paths, every, skip_unreadable)
    for option, (folder, what) in outputs.folders().items():
        refuse_twins(sources, folder, option, what)
    place = pick_device(device)
    trained.model.to(place)
    rows: list[list[str]] = []
    with ExitStack() as whole:
        advance = whole.enter_context(progress("predicting", count_images(sources)))
        write = whole.enter_context(growing_json(outputs.out)) if outputs.out else None
        label = whole.enter_context(task.labels(trained, outputs.labels, outputs.form)) if outputs.labels else None
        for source in sources:
            tally: Counter[str] = Counter()
            images = 0
            with ExitStack() as files:
                draw = drawing(source, outputs.draw, files)
                for chunk in source.chunks():
                    found = task.predict(trained, [image for _, image in chunk], options, place)
                    for (frame, image), one in zip(chunk, found, strict=True):
                        entries = one.entries(source.image_id(frame))
                        if write is not None:
                            for entry in entries:
                                write(entry)
                        if label is not None:
                            label(source.picture(frame), None if source.video else source.path, image, entries)
                        tally.update(one.tally())
                        if outputs.masks is not None:
                            one.write_mask(outputs.masks / source.picture(frame))
                        if draw is not None:
                            draw(one.drawn(image))
                    images += len(chunk)
                    advance(len(chunk))
            if len(rows) < _SHOWN:
                rows.append([str(source.path), task.summary(trained, tally, images)])
    print_table(["image", task.found], rows)
    if len(sources) > _SHOWN:
        say(f"and {len(sources) - _SHOWN} more{'' if outputs.out else '; --out FILE writes them all'}")
    for folder, what in outputs.folders().values():
        say(f"{what}s written into {folder}")
    return say_passed_over(refused)


def _refuse_options(run: Path, name: str, given: list[str]) -> None:
    """Raises InputError for an option that is for models of other tasks."""
    task = task_of(name)
    for option in given:
        if option not in task.options:
            meant = [f"{other.noun}s" for other in map(task_of, TASKS) if option in other.options]
            raise InputError(f"{option} is for {' and '.join(meant)}, and {run} is a {task.noun}")
