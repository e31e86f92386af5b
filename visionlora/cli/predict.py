"""``visionlora predict``."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from visionlora.cli.footage import PIECES, FootageOptions
from visionlora.cli.live import Speed, refuse_beside_a_stream, streaming
from visionlora.cli.show import check_folder, check_out, print_table, progress, say
from visionlora.cli.sources import Shot, Source, count_images, drawing, find_sources, refuse_twins, stamp
from visionlora.cli.videos import say_passed_over
from visionlora.data.live_address import is_live
from visionlora.data.picture_statistics import PictureStatistics
from visionlora.errors import InputError, some
from visionlora.exports.opening import open_trained
from visionlora.files import growing_json, lengthening_lines
from visionlora.fleet.index import read_index
from visionlora.fleet.registry import adapter_file
from visionlora.footage.drift import DriftWatch
from visionlora.footage.tracking import import_tracking
from visionlora.footage.watching import Watch
from visionlora.tasks.detection.prediction import ImageObjects
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import AddLabels, Prediction, PredictOptions
from visionlora.tasks.registry import TASKS, task_of
from visionlora.tasks.trained import PICTURES
from visionlora.training.host_memory import freed_memory_kept
from visionlora.training.run import pick_device

_SHOWN = 40
"""Rows of the table."""


@dataclass(frozen=True)
class Outputs:
    """Where predictions go.

    Attributes:
        out: a file for all of them, as JSON; ``image_id`` of a video's frame is its path with ``#`` and the number.
            Of a stream, lines are added to it as they come.
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


def model_and_images(run: str, images: list[str], fleet: Path | None, camera: str) -> tuple[Path, list[str]]:
    """What to predict with, and on: with a fleet the camera's current adapter, and all the paths that were given.

    Raises:
        InputError: the one is given without the other, the fleet has no such camera, or there are no images.
    """
    if fleet is None and camera:
        raise InputError(f"--camera {camera}: says whose adapter of a fleet; give its folder with --fleet")
    if fleet is None:
        if not images:
            raise InputError(f"{run}: no images to predict on; give files or folders after it")
        return Path(run), images
    if not camera:
        raise InputError(
            f"--fleet {fleet}: say whose adapter with --camera; there are {some(read_index(fleet).cameras)}"
        )
    return adapter_file(fleet, camera), [run, *images]


def predict(
    run: Path,
    given_paths: list[str],
    outputs: Outputs,
    options: PredictOptions,
    footage: FootageOptions,
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
        given_paths: images, videos, and folders of images; or the address of one live stream.
        outputs: what is written.
        options: for the model's task.
        footage: what is asked for of videos and streams.
        given: the options that were given of those that not all tasks take.
        every: take each n-th frame of a video or stream.
        checkpoint: the base's weights, if they have moved.
        device: to compute on.
        skip_unreadable: leave out images that can't be read.
        download: fetch the base from the hub that a lone file names.

    Returns:
        the exit code: 1 if a video among several files was passed over, or a stream was lost for good.
    """
    streams = [path for path in given_paths if is_live(path)]
    if streams:
        refuse_beside_a_stream(given_paths, outputs.out, outputs.labels)
    elif footage.given_of_streams():
        raise InputError(f"{footage.given_of_streams()[0]} is for live streams, and none is given")
    trained = open_trained(run, checkpoint, download)
    task = task_of(trained.task)
    _refuse_options(run, trained.task, given)
    check_out(outputs.out)
    for option, (folder, _) in outputs.folders().items():
        check_folder(folder, option)
    if footage.wanted:
        import_tracking()  # takes a second, in which a stream's frames would be dropped
    with ExitStack() as whole:
        refused: list[Path] = []
        if streams:
            sources = [whole.enter_context(streaming(streams[0], footage, every))]
        else:
            sources, refused = find_sources(list(map(Path, given_paths)), every, skip_unreadable)
        if footage.given() and not any(source.footage for source in sources):
            raise InputError(f"{footage.given()[0]} is for videos and live streams, and none is given")
        for option, (folder, what) in outputs.folders().items():
            refuse_twins(sources, folder, option, what)
        at = pick_device(device)
        if not streams:  # those go on for weeks
            whole.enter_context(freed_memory_kept(at))
        look = _Looking(trained, options, at, footage, outputs)
        look.advance = whole.enter_context(progress("predicting", count_images(sources)))
        look.write = whole.enter_context(_written(outputs.out, bool(streams))) if outputs.out else None
        look.label = whole.enter_context(task.labels(trained, outputs.labels, outputs.form)) if outputs.labels else None
        rows: list[list[str]] = []
        for source in sources:
            found = look.at(source)
            if len(rows) < _SHOWN:
                rows.append([str(source.path), found])
    print_table(["image", task.found], rows)
    if len(sources) > _SHOWN:
        say(f"and {len(sources) - _SHOWN} more{'' if outputs.out else '; --out FILE writes them all'}")
    for folder, what in outputs.folders().values():
        say(f"{what}s written into {folder}")
    lost = [source for source in sources if source.live and source.live.lost]
    return say_passed_over(refused) or int(bool(lost))


class _Looking:
    """What is done with each source: predict, and hand out what was found.

    Attributes:
        advance: called with numbers of images that are done.
        write, label: called with an entry, and with an image and its entries; None where nobody asked.
    """

    def __init__(
        self, trained: Trained, options: PredictOptions, device: torch.device, footage: FootageOptions, outputs: Outputs
    ) -> None:
        self.advance: Callable[[int], object] = lambda _done: None
        self.write: Callable[[Any], object] | None = None
        self.label: AddLabels | None = None
        self._trained, self._task = trained, task_of(trained.task)
        self._options, self._device, self._footage, self._outputs = options, device, footage, outputs
        trained.model.to(device)

    def at(self, source: Source) -> str:
        """Look at all of it; in a few words, what was found."""
        tally: Counter[str] = Counter()
        images = 0
        with ExitStack() as files:
            watch, speed = _watch(source, self._footage), Speed(source)
            pieces = self._footage.pieces or (PIECES if source.live else None)
            draw = drawing(source, self._outputs.draw, files, pieces)
            drift = self._drift() if source.footage else None
            for chunk in source.chunks():
                found = self._task.predict(self._trained, [shot.image for shot in chunk], self._options, self._device)
                for shot, plain in zip(chunk, found, strict=True):
                    one = plain if watch is None else watch.look(cast(ImageObjects, plain), shot.seconds)
                    self._hand_out(source, shot, one, plain)
                    tally.update(one.tally())
                    if draw is not None:
                        draw(one.drawn(shot.image), shot)
                    if drift is not None and (line := drift.look(shot.image, shot.seconds)):
                        when = f"{shot.seconds:.0f} s in" if shot.time is None else stamp(shot.time)
                        say(f"{source.path}: {when}, {line}")
                images += len(chunk)
                self.advance(len(chunk))
                speed(images)
        for line in (*speed.last(images), *(watch.summary() if watch else ())):
            say(line)
        return self._task.summary(self._trained, tally, images) if images else "no frame"

    def _drift(self) -> DriftWatch | None:
        """None where the model's file says nothing of its training images."""
        known = self._trained.about.get(PICTURES)
        if known is None:
            return None
        try:
            return DriftWatch(PictureStatistics.from_dict(known))
        except InputError as error:
            raise InputError(f"{self._trained.path}: {error}") from error

    def _hand_out(self, source: Source, shot: Shot, one: Prediction, plain: Prediction) -> None:
        """``plain`` is the prediction without what footage adds, as labels take it."""
        name = source.image_id(shot.number)
        if self.write is not None:
            for entry in one.entries(name):
                self.write({**entry, **shot.stamps()})
        if self.label is not None:
            self.label(source.picture(shot.number), source.file, shot.image, plain.entries(name))
        if self._outputs.masks is not None:
            one.write_mask(self._outputs.masks / source.picture(shot.number))


def _written(out: Path, endless: bool) -> AbstractContextManager[Callable[[Any], object]]:
    return lengthening_lines(out) if endless else growing_json(out)


def _watch(source: Source, footage: FootageOptions) -> Watch | None:
    shown = source.footage
    if shown is None or not footage.wanted:
        return None
    return Watch(footage.wanted, shown.fps / shown.every, (shown.width, shown.height))


def _refuse_options(run: Path, name: str, given: list[str]) -> None:
    """Raises InputError for an option that is for models of other tasks."""
    task = task_of(name)
    for option in given:
        if option not in task.options:
            meant = [f"{other.noun}s" for other in map(task_of, TASKS) if option in other.options]
            raise InputError(f"{option} is for {' and '.join(meant)}, and {run} is a {task.noun}")
