"""Evaluation on a merged copy."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from visionlora.adapters.model import merged


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A merged copy in eval mode: an adapted weight costs a matrix product at every forward, a merged one nothing."""
    return merged(model).eval()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable[dict[str, Any]],
    metrics: Any,
    device: torch.device,
    autocast: AbstractContextManager[Any],
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Run a plain model in eval mode over a loader and feed ``metrics``.

    Args:
        model: (N, 3, H, W) -> (N, classes).
        loader: batches with ``image`` and ``label``.
        metrics: has ``update(logits, labels)``.
        autocast: a context for the forward passes; can be entered repeatedly.
        on_batch: called with the number of images after each batch.
    """
    for batch in loader:
        with autocast:
            logits = model(batch["image"].to(device, non_blocking=True))
        metrics.update(logits, batch["label"].to(device, non_blocking=True))
        if on_batch:
            on_batch(len(logits))
