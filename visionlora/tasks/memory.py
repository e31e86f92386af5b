"""When memory runs out."""

import ctypes
import gc
import sys
from contextlib import suppress

import torch

_CPU = "can't allocate memory"
"""How torch's allocator for the CPU ends what it says. It seldom does: most systems kill the process instead."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on a GPU or the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and _CPU in str(error))


def free_memory() -> None:
    """Give back what nobody holds any more. Not to be called while an error is handled, whose frames hold tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library than GNU's, which keeps what was freed for itself
            ctypes.CDLL(None).malloc_trim(0)
