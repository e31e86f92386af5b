"""The memory that a step on a CPU frees, and the next one takes."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from visionlora.adapters.layer import Memory
from visionlora.tasks.memory import glibc

_TRIM, _MMAP = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3), in bytes."""
_KEPT = (2**31 - 1, 2**30)
_USUAL = (2**26, 2**25)
"""The most that glibc goes to by itself."""


@contextmanager
def freed_memory_kept(device: torch.device, memory: Memory = "fast") -> Iterator[None]:
    """Let the C library keep freed blocks of up to 1 GiB for the next allocation while the block runs.

    Every step takes tensors of the same sizes. Those above 32 MiB glibc asks of the system each time, and gives back,
    and a page of 4 KiB that is touched for the first time costs more than to compute what is written there. Nothing
    happens on a GPU, with another C library, where the environment says how memory is to be given (``MALLOC_...``,
    ``GLIBC_TUNABLES``), or with ``memory="low"``: between blocks of many sizes there may be some that fit nothing.
    """
    told = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    library = glibc() if device.type == "cpu" and memory == "fast" and not told else None
    if library is None:
        yield
        return
    try:
        _set(library, _KEPT)
        yield
    finally:
        _set(library, _USUAL)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, thresholds: tuple[int, int]) -> None:
    for option, size in zip((_TRIM, _MMAP), thresholds, strict=True):
        library.mallopt(option, size)
