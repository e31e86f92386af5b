"""An evaluation: a plain model over images with the truth about them."""

import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from visionlora.adapters.model import merged
from visionlora.data.loading import in_shares
from visionlora.errors import InputError
from visionlora.tasks.memory import free_memory, out_of_memory
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Additive, Batch, Labelled, Metrics
from visionlora.tasks.registry import task_of

OnBatch = Callable[[int], None]
"""To be called with the number of images after each batch."""
Progress = Callable[[str, int | None], AbstractContextManager[OnBatch]]
"""Of what is going to be done and how many there are, a context that gives what to call with numbers of images done."""


@contextmanager
def silent(description: str, total: int | None) -> Iterator[OnBatch]:
    """No progress is shown."""
    del description, total
    yield lambda _: None


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A merged copy in eval mode: an adapted weight costs a matrix product at every forward, a merged one nothing."""
    return merged(model).eval()


def score(
    trained: Trained,
    data: Labelled,
    batch_size: int = 8,
    workers: int = 0,
    device: torch.device | None = None,
    progress: Progress = silent,
    autocast: AbstractContextManager[Any] | None = None,
    part: tuple[int, int] = (0, 1),
    in_step: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Metrics:
    """Evaluate a plain model in eval mode on images whose classes are its own.

    Args:
        trained: the model, which is moved to the device.
        data: as its task reads images.
        batch_size: images, or parts of them where the model sees parts; half as many where that is more than memory
            holds, with a warning.
        workers: processes that read images.
        device: by default the CPU.
        progress: shows how many are done.
        autocast: a context for the forward passes; can be entered repeatedly.
        part: rank and number of the processes that share the images. Each has the scores of its own, unless the
            metrics are not ``Additive``; then each sees all.
        in_step: around each batch's forward passes, and as often in every process: for a model whose weights these
            hold together.

    Raises:
        InputError: an image can't be read, what the data says of it does not do for this model, or memory does not
            hold one image.
    """
    while True:
        try:
            at = device or torch.device("cpu")
            return _score(trained, data, batch_size, workers, at, progress, autocast, part, in_step)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if batch_size == 1 or part[1] > 1:  # others would not begin again
                many = f"{batch_size} images" if batch_size > 1 else "one image"
                raise InputError(f"out of memory in an evaluation, with {many} at a time: {error}") from error
        batch_size //= 2
        warnings.warn(f"out of memory: the evaluation begins again with {batch_size} images at a time", stacklevel=2)
        free_memory()


@torch.no_grad()
def _score(
    trained: Trained,
    data: Labelled,
    batch_size: int,
    workers: int,
    device: torch.device,
    progress: Progress,
    autocast: AbstractContextManager[Any] | None,
    part: tuple[int, int],
    in_step: Callable[[], AbstractContextManager[None]],
) -> Metrics:
    task = task_of(trained.task)
    trained.model.to(device)
    metrics: Metrics = task.metrics(trained, data, device)
    loader, predictor = task.loader(trained, data, batch_size, workers), task.predictor(trained)
    rank, size = part if isinstance(metrics, Additive) else (0, 1)
    shares = in_shares(loader, size) if size > 1 else [loader]
    with progress("evaluating", len(cast(Sized, loader.dataset))) as on_batch:
        for batch in shares[rank]:
            images, targets = to_device(batch["image"], device), to_device(batch["target"], device)
            with in_step(), autocast or nullcontext():
                outputs = predictor(images)
            metrics.update(outputs, targets)
            on_batch(len(images))
        for _ in range(max(map(len, shares)) - len(shares[rank])):
            with in_step():
                pass
            on_batch(0)  # as often in every process, for they may talk to each other there
    return metrics


def example(trained: Trained, data: Labelled, device: torch.device) -> Any:
    """What the model takes in eval mode, of the first image."""
    loader = task_of(trained.task).loader(trained, data, 1, 0)
    return to_device(next(iter(loader))["image"], device)


def placed(batch: Batch, device: torch.device, channels_last: bool) -> Batch:
    """A training batch on the device, its images in the memory format that is asked for."""
    image = to_device(batch["image"], device)
    if channels_last and isinstance(image, Tensor) and image.dim() == 4:  # a list's images have three dimensions
        image = image.contiguous(memory_format=torch.channels_last)
    return {**batch, "image": image, "target": to_device(batch["target"], device)}


def to_device(value: Any, device: torch.device) -> Any:
    """A tensor, or lists and dicts of such, on the device; anything else stays as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, list):
        return [to_device(entry, device) for entry in value]
    if isinstance(value, dict):
        return {key: to_device(entry, device) for key, entry in value.items()}
    return value
