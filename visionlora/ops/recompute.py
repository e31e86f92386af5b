"""Inputs that a layer need not keep, because a cheap module before it can make them again.

An adapted layer needs its input in the backward, and the activation or LayerNorm that made that input
needs its own. Keeping the latter alone and running the module a second time halves what is stored there,
and gives the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from visionlora.ops.autocast import is_autocast

_NOTE = "_visionlora_recall"


@dataclass(frozen=True)
class Recall:
    """How a tensor was made: ``again(source)``.

    Attributes:
        source: what it was made from, which its maker keeps for the backward, too.
        again: the maker's forward, under the same autocast; it does not hold the source, for it outlives
            the saved tensors.
        versions: of source and tensor when it was made; they change when somebody writes into them.
    """

    source: Tensor
    again: Callable[[Tensor], Tensor]
    versions: tuple[int, int]


def leave_note(output: Tensor, source: Tensor, make: Callable[[Tensor], Tensor]) -> None:
    """Note on ``output`` that it is ``make(source)``."""
    autocast = torch.get_autocast_dtype(source.device.type) if is_autocast(source) else None
    versions = (source._version, output._version)
    setattr(output, _NOTE, Recall(source, partial(_make_again, make, autocast), versions))


def note_on(tensor: Tensor) -> Recall | None:
    """The tensor's note, or None if there is none or it holds no longer."""
    note: Recall | None = getattr(tensor, _NOTE, None)
    return note if note is not None and note.versions == (note.source._version, tensor._version) else None


def _make_again(make: Callable[[Tensor], Tensor], autocast: torch.dtype | None, source: Tensor) -> Tensor:
    if source.is_meta:
        return make(source)
    with torch.autocast(source.device.type, dtype=autocast, enabled=autocast is not None):
        return make(source)
