"""Safetensors files: opening them, and writing them: the same content is the same bytes, metadata has its own hash.

The library's own writer puts metadata in random order, and makes temporary files that only its owner may read and that
a kill leaves behind. The format is https://huggingface.co/docs/safetensors/index#format
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from visionlora.checksums import BLANK, FIELD, stamp
from visionlora.errors import InputError

LARGEST_HEADER = 1 << 24
"""Bytes; names of a hundred thousand classes are a fifth of it."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file to read from, as ``safe_open`` gives it; its header is not parsed if it is too large.

    Raises:
        InputError: it is too large, or the file is cut, damaged or another kind of file.
    """
    try:
        with path.open("rb") as start:
            size = int.from_bytes(start.read(8), "little")
        if LARGEST_HEADER < size < path.stat().st_size:
            raise InputError(
                f"{path}: its header has {size:,} bytes, and {LARGEST_HEADER:,} is the most; it is no file of ours"
            )
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); copy or save it again") from error


def shapes_of(file: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of an open file's tensors by name, without the tensors."""
    return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file. Raises OSError, which names the file, if the disk is full."""
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    order = sorted(plain, key=lambda key: (-plain[key].element_size(), key))  # so that each is aligned
    entries: dict[str, object] = {}
    at = 0
    for key in order:
        tensor = plain[key]
        end = at + tensor.numel() * tensor.element_size()
        entries[key] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    if metadata is not None:
        entries["__metadata__"] = {**metadata, FIELD: BLANK}
    header = json.dumps(entries, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    try:
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for key in order:
                file.write(plain[key].reshape(-1).view(torch.uint8).numpy().data)
        if metadata is not None:
            stamp(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
