"""TensorBoard's event files of a run that goes on: each step is in them once."""

import time
from pathlib import Path
from typing import Any

_NAME = "events.out.tfevents."
_DIGITS = 10
"""TensorBoard reads a folder's files in the order of their names, which begin with the second of their start."""


def sizes(folder: Path) -> list[int]:
    """Bytes of each event file, in the order in which they are read."""
    return [path.stat().st_size for path in _files(folder)]


def go_on(folder: Path, kept: list[int] | None, step: int) -> Any:
    """A writer for what comes after ``step``, with what was written later than ``kept`` says removed.

    Args:
        folder: of the event files.
        kept: what ``sizes`` gave at the time to go on from; None if nobody knows, as older checkpoints have it.
        step: optimizer steps until then. A TensorBoard that is running forgets later ones.
    """
    from torch.utils.tensorboard import SummaryWriter

    files = _files(folder)
    if kept is not None:
        for path in files[len(kept) :]:
            path.unlink()
        for path, size in zip(files, kept, strict=False):
            if path.stat().st_size > size:
                with path.open("r+b") as file:
                    file.truncate(size)
    _put_before(_files(folder), int(time.time()))
    return SummaryWriter(str(folder), purge_step=step + 1 if files else None)


def image(tag: str, encoded: bytes, shape: tuple[int, ...]) -> Any:
    """The summary of a picture (H, W, C), a PNG or JPEG already; ``SummaryWriter.add_image`` would encode it again."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    height, width, channels = shape
    picture = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded)
    return Summary(value=[Summary.Value(tag=tag, image=picture)])


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_NAME}*"))


def _put_before(files: list[Path], now: int) -> None:
    """Rename the files, in their order, if a new one would not be the last: clocks are set back, and runs are short."""
    if not files or int(files[-1].name[len(_NAME) :][:_DIGITS]) < now:
        return
    for number, path in enumerate(files):
        path.rename(path.with_name(f"{_NAME}{number:0{_DIGITS}}{path.name[len(_NAME) + _DIGITS :]}"))
