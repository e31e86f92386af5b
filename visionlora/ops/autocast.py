"""Autocast for the fused operations: their input is cast, and nothing inside is. Float64 is never cast."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def plain_autocast(x: Tensor) -> Iterator[Tensor]:
    """``x`` as autocast would give it to a layer; within the block autocast is off."""
    device = x.device.type
    if not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        yield x
        return
    with torch.autocast(device, enabled=False):
        yield x.to(torch.get_autocast_dtype(device))
