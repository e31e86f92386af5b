"""Autocast for the fused operations: their input is cast, and nothing inside is. Float64 is never cast."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def is_autocast(x: Tensor) -> bool:
    """Whether autocast is on where ``x`` lies; the meta device, which holds no numbers, has none."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def outside_autocast(function: Callable[..., Tensor], x: Tensor, *rest: Any) -> Tensor:
    """``function(x, *rest)`` on ``x`` as autocast would give it to a layer, and with autocast off inside."""
    if not is_autocast(x) or x.dtype == torch.float64:
        return function(x, *rest)
    device = x.device.type
    with torch.autocast(device, enabled=False):
        return function(x.to(torch.get_autocast_dtype(device)), *rest)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """For what is computed beside ``x`` in the precision that it has."""
    return torch.autocast(x.device.type, enabled=False) if is_autocast(x) else nullcontext()
