"""``visionlora predict``."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from visionlora.cli.footage import PATIENCE, PIECES, FootageOptions
from visionlora.cli.show import check_folder, check_out, print_table, progress, say
from visionlora.cli.sources import Source, count_images, drawing, find_sources, refuse_twins, stream_source
from visionlora.cli.videos import say_passed_over
from visionlora.data.live import LiveStream
from visionlora.data.live_address import is_live
from visionlora.errors import InputError
from visionlora.exports.opening import open_trained
from visionlora.files import growing_json, lengthening_lines
from visionlora.footage.watching import Watch
from visionlora.stopping import stop_requests
from visionlora.tasks.base import PredictOptions
from visionlora.tasks.detection.prediction import ImageObjects
from visionlora.tasks.registry import TASKS, task_of
from visionlora.training.run import pick_device

_SHOWN = 40
"""Rows of the table."""
_MINUTE = 60.0
"""Seconds between two lines about a stream."""


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
        _refuse_beside_a_stream(given_paths, outputs)
    elif footage.given_of_streams():
        raise InputError(f"{footage.given_of_streams()[0]} is for live streams, and none is given")
    trained = open_trained(run, checkpoint, download)
    task = task_of(trained.task)
    _refuse_options(run, trained.task, given)
    check_out(outputs.out)
    for option, (folder, _) in outputs.folders().items():
        check_folder(folder, option)
    with ExitStack() as whole:
        refused: list[Path] = []
        if streams:
            sources = [whole.enter_context(_streaming(streams[0], footage, every))]
        else:
            sources, refused = find_sources(list(map(Path, given_paths)), every, skip_unreadable)
        if footage.given() and not any(source.footage for source in sources):
            raise InputError(f"{footage.given()[0]} is for videos and live streams, and none is given")
        for option, (folder, what) in outputs.folders().items():
            refuse_twins(sources, folder, option, what)
        place = pick_device(device)
        trained.model.to(place)
        rows: list[list[str]] = []
        advance = whole.enter_context(progress("predicting", count_images(sources)))
        write = whole.enter_context(_written(outputs.out, bool(streams))) if outputs.out else None
        label = whole.enter_context(task.labels(trained, outputs.labels, outputs.form)) if outputs.labels else None
        for source in sources:
            tally: Counter[str] = Counter()
            images = 0
            with ExitStack() as files:
                watch = _watch(source, footage)
                pieces = footage.pieces or (PIECES if source.live else None)
                draw = drawing(source, outputs.draw, files, pieces)
                tell = _Speed(source)
                for chunk in source.chunks():
                    found = task.predict(trained, [shot.image for shot in chunk], options, place)
                    for shot, plain in zip(chunk, found, strict=True):
                        one = plain if watch is None else watch.look(cast(ImageObjects, plain), shot.seconds)
                        if write is not None:
                            for entry in one.entries(source.image_id(shot.number)):
                                write({**entry, **shot.stamps()})
                        if label is not None:
                            entries = plain.entries(source.image_id(shot.number))
                            label(source.picture(shot.number), source.file, shot.image, entries)
                        tally.update(one.tally())
                        if outputs.masks is not None:
                            one.write_mask(outputs.masks / source.picture(shot.number))
                        if draw is not None:
                            draw(one.drawn(shot.image), shot)
                    images += len(chunk)
                    advance(len(chunk))
                    tell(images)
            if len(rows) < _SHOWN:
                rows.append([str(source.path), task.summary(trained, tally, images) if images else "no frame"])
            for line in (*tell.last(images), *(watch.summary() if watch else ())):
                say(line)
    print_table(["image", task.found], rows)
    if len(sources) > _SHOWN:
        say(f"and {len(sources) - _SHOWN} more{'' if outputs.out else '; --out FILE writes them all'}")
    for folder, what in outputs.folders().values():
        say(f"{what}s written into {folder}")
    lost = [source for source in sources if source.live and source.live.lost]
    return say_passed_over(refused) or int(bool(lost))


@contextmanager
def _streaming(address: str, footage: FootageOptions, every: int) -> Iterator[Source]:
    """A stream that is connected to, and let go at the end; a signal ends it, and what was found is kept."""
    patience = PATIENCE if footage.patience is None else footage.patience
    with (
        stop_requests() as asked,
        LiveStream(address, every, patience=patience, limit=footage.limit, stop=asked, tell=say) as stream,
    ):
        yield stream_source(stream, address)


def _written(out: Path, endless: bool) -> AbstractContextManager[Callable[[Any], object]]:
    return lengthening_lines(out) if endless else growing_json(out)


def _watch(source: Source, footage: FootageOptions) -> Watch | None:
    shown = source.footage
    if shown is None or not footage.wanted:
        return None
    return Watch(footage.wanted, shown.fps / shown.every, (shown.width, shown.height))


class _Speed:
    """Says how quick it is: of a stream once a minute, and of any footage at its end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start = self._before = time.monotonic()
        self._images = 0

    def __call__(self, images: int) -> None:
        now = time.monotonic()
        if self._source.live is None or now - self._before < _MINUTE:
            return
        rate = (images - self._images) / (now - self._before)
        self._before, self._images = now, images
        say(f"{images} frames, {rate:.1f} frames/s{self._stream()}")

    def last(self, images: int) -> list[str]:
        """What is to be said at the end."""
        if self._source.footage is None:
            return []
        seconds = time.monotonic() - self._start
        lost = self._source.live.lost if self._source.live else ""
        ended = [f"{self._source.path}: given up: {lost}"] if lost else []
        rate = images / max(seconds, 1e-9)
        return [*ended, f"{self._source.path}: {images} frames in {seconds:.0f} s, {rate:.1f} frames/s{self._stream()}"]

    def _stream(self) -> str:
        if self._source.live is None:
            return ""
        counts = self._source.live.counts
        damaged = f", {counts.damaged} damaged" if counts.damaged else ""
        again = f", connected again {counts.reconnects} times" if counts.reconnects else ""
        return f", {counts.dropped} dropped{damaged}{again}"


def _refuse_beside_a_stream(paths: Sequence[str], outputs: Outputs) -> None:
    """Raises InputError for what can't be, where one of the paths is a stream's address."""
    if len(paths) > 1:
        raise InputError("a live stream never ends; give it alone, and start a command for each")
    if outputs.labels is not None:
        raise InputError("--labels is for images and videos, and a live stream never ends; save some with frames first")
    if outputs.out is not None and outputs.out.suffix != ".jsonl":
        raise InputError(f"--out {outputs.out}: of a live stream lines are written as they come; end it in .jsonl")


def _refuse_options(run: Path, name: str, given: list[str]) -> None:
    """Raises InputError for an option that is for models of other tasks."""
    task = task_of(name)
    for option in given:
        if option not in task.options:
            meant = [f"{other.noun}s" for other in map(task_of, TASKS) if option in other.options]
            raise InputError(f"{option} is for {' and '.join(meant)}, and {run} is a {task.noun}")
