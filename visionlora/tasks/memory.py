"""When memory runs out."""

import ctypes
import gc
import sys

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
    if (library := glibc()) is not None:
        library.malloc_trim(0)  # which keeps what was freed for itself


def glibc() -> ctypes.CDLL | None:
    """GNU's C library, or None where the process has another one."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None
