"""What is written and shown while a run goes on: metrics.jsonl, TensorBoard, progress."""

import hashlib
import io
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from visionlora.errors import printable, some
from visionlora.files import write_atomic
from visionlora.tasks.protocols import Scores
from visionlora.training import events
from visionlora.training.checkpoint import Progress as RunProgress
from visionlora.training.folder import EVENTS, FIGURES, METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_PHOTO = 100_000
"""Bytes of a PNG from which it has photos in it."""


class Monitor:
    """Writes a run's numbers and pictures, and shows a progress bar.

    Args:
        folder: of the run.
        progress: where to go on; later lines and events of an interrupted try are dropped.
        total_steps: optimizer steps of the whole run.
        console: where people look.
        quiet: show the bar alone.
    """

    def __init__(self, folder: Path, progress: RunProgress, total_steps: int, console: Console, quiet: bool) -> None:
        self._quiet = quiet
        self._figures = folder / FIGURES
        metrics = folder / METRICS
        metrics.touch()
        with metrics.open("r+b") as file:
            file.truncate(progress.metrics_bytes)
        self._digest = hashlib.sha256(metrics.read_bytes())
        self._metrics = metrics.open("ab")
        self._event_folder = folder / EVENTS
        self._events = events.go_on(self._event_folder, progress.events, progress.step)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("training", total=total_steps, completed=progress.step, numbers="")
        self._started, self._images = time.perf_counter(), 0

    def __enter__(self) -> "Monitor":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._events.close()
        self._metrics.close()
        with suppress(OSError):  # the terminal may be gone, which is no reason to lose why the run ended
            self._progress.stop()

    @property
    def metrics_bytes(self) -> int:
        """Length of metrics.jsonl so far."""
        return self._metrics.tell()

    @property
    def metrics_sha256(self) -> str:
        """The hash of so many bytes."""
        return self._digest.hexdigest()

    def event_sizes(self) -> list[int]:
        """Bytes of TensorBoard's files so far."""
        self._events.flush()
        return events.sizes(self._event_folder)

    def count_images(self, images: int) -> None:
        """Take note of a batch, for images/s."""
        self._images += images

    def advance(self, epoch: int, epochs: int, step: int) -> None:
        """Move the bar to ``step``."""
        self._progress.update(self._task, completed=step, description=f"epoch {epoch + 1}/{epochs}")

    def train_step(
        self,
        step: int,
        epoch: int,
        loss: float | None,
        parts: dict[str, float],
        rates: dict[str, float],
        layers: dict[str, float],
    ) -> None:
        """Log the mean of the finite losses since the last call (None without any), the last one's parts, learning
        rates, and the adapted layers.
        """
        speed = self._images / max(1e-9, time.perf_counter() - self._started)
        self._started, self._images = time.perf_counter(), 0
        self._line({"kind": "train", "step": step, "epoch": epoch, "loss": loss, **_prefixed("lr_", rates)})
        scalars = {"train/images_per_s": speed, **_prefixed("train/", parts)}
        scalars |= {} if loss is None else {"train/loss": loss}
        scalars |= _prefixed("learning_rate/", rates) | layers
        for tag, value in scalars.items():
            self._events.add_scalar(tag, value, step)
        self._progress.update(
            self._task, numbers=f"loss {float('nan') if loss is None else loss:.4f}  {speed:.0f} images/s"
        )

    def skipped(self, step: int, epoch: int, what: str, files: list[str]) -> None:
        """Log a step over these files that was left out, because ``what`` was not finite."""
        self._line({"kind": "skipped", "step": step, "epoch": epoch, "what": what, "files": files})
        self.say(f"step {step} skipped: its {what} is not finite{f' ({some(files, 4)})' if files else ''}")

    def unreadable(self, step: int, epoch: int, reason: str) -> None:
        """Log a training image that is left out from now on."""
        self._line({"kind": "unreadable", "step": step, "epoch": epoch, "reason": reason})
        self.say(f"{reason}; the run goes on without it")

    def evaluation(self, step: int, epoch: int, scores: Scores, per_class: dict[str, Scores]) -> None:
        """Log an evaluation's scores, per class too."""
        self._line({"kind": "val", "step": step, "epoch": epoch, **scores})
        for name, value in scores.items():
            self._events.add_scalar(f"val/{name}", value, step)
        for class_name, values in per_class.items():
            for name, value in values.items():
                self._events.add_scalar(f"val_{name}_per_class/{class_name}", value, step)

    def figure(self, name: str, figure: "Figure | np.ndarray", step: int) -> None:
        """Log a picture, as a figure or its pixels (H, W, 3), and keep the last one of each name as a file."""
        pixels = figure if isinstance(figure, np.ndarray) else _drawn(figure)
        png = _encoded(pixels, "PNG", compress_level=1)  # half the time, and a seventh more bytes
        write_atomic(self._figures / f"{name}.png", lambda temporary: temporary.write_bytes(png))
        # TensorBoard makes a checksum in Python, which for a photo's PNG takes longer than to draw it.
        shown = png if len(png) < _PHOTO else _encoded(pixels, "JPEG", quality=90)
        self._events.file_writer.add_summary(events.image(name, shown, pixels.shape), step)

    def hyperparameters(self, settings: dict[str, Any], scores: dict[str, float]) -> None:
        """Log the settings beside the final scores, for TensorBoard's comparison of runs."""
        from torch.utils.tensorboard.summary import hparams

        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in settings.items()
        }
        finals = _prefixed("final/", scores)
        for summary in hparams(plain, finals):  # add_hparams would open a file of its own
            self._events.file_writer.add_summary(summary)
        for tag, value in finals.items():
            self._events.add_scalar(tag, value)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            self._progress.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def restart_clock(self) -> None:
        """Leave the time since the last step out of images/s (evaluation, saving)."""
        self._started, self._images = time.perf_counter(), 0

    def _line(self, values: dict[str, Any]) -> None:
        line = (json.dumps(values) + "\n").encode()
        self._digest.update(line)
        self._metrics.write(line)
        self._metrics.flush()


class NoMonitor:
    """Of a process that writes and shows nothing, for another one does: takes every call, and does nothing."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_given: None


def _prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}{key}": value for key, value in values.items()}


def _drawn(figure: "Figure") -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _encoded(pixels: np.ndarray, form: str, **settings: int) -> bytes:
    """An image (H, W, 3) as a file."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, form, **settings)
    return written.getvalue()
