"""Evaluation on a merged copy."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters.model import merged


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A merged copy in eval mode: an adapted weight costs a matrix product at every forward, a merged one nothing."""
    return merged(model).eval()


@torch.no_grad()
def evaluate(
    model: Callable[[Any], Any],
    loader: Iterable[dict[str, Any]],
    metrics: Any,
    device: torch.device,
    autocast: AbstractContextManager[Any],
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Run a plain model in eval mode over a loader and feed ``metrics``.

    Args:
        model: takes a batch's ``image``; it, or what its task's ``predictor`` makes of it.
        loader: batches with ``image`` and ``target``.
        metrics: has ``update(outputs, targets)``.
        autocast: a context for the forward passes; can be entered repeatedly.
        on_batch: called with the number of images after each batch.
    """
    for batch in loader:
        images, targets = to_device(batch["image"], device), to_device(batch["target"], device)
        with autocast:
            outputs = model(images)
        metrics.update(outputs, targets)
        if on_batch:
            on_batch(len(images))


def to_device(value: Any, device: torch.device) -> Any:
    """A tensor, or lists and dicts of such, on the device; anything else stays as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, list):
        return [to_device(entry, device) for entry in value]
    if isinstance(value, dict):
        return {key: to_device(entry, device) for key, entry in value.items()}
    return value
