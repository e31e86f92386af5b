"""Inputs that a layer need not keep, because a cheap module before it can make them again.

An adapted layer needs its input in the backward, and the activation or LayerNorm that made that input
needs its own. Keeping the latter alone and running the module a second time halves what is stored there,
and gives the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NOTE = "_visionlora_recall"


@dataclass(frozen=True)
class Recall:
    """How a tensor was made: ``make(source)``, under the same autocast.

    Attributes:
        source: what it was made from, which its maker keeps for the backward, too.
        make: the maker's forward.
        autocast: the dtype, or None if it was off.
        version: of the tensor when it was made; it changes when somebody writes into it.
    """

    source: Tensor
    make: Callable[[Tensor], Tensor]
    autocast: torch.dtype | None
    version: int

    def again(self, source: Tensor) -> Tensor:
        """The tensor, from the saved ``source``."""
        device = source.device.type
        with torch.autocast(device, dtype=self.autocast, enabled=self.autocast is not None):
            return self.make(source)


def leave_note(output: Tensor, source: Tensor, make: Callable[[Tensor], Tensor]) -> None:
    """Note on ``output`` that it is ``make(source)``."""
    device = source.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    setattr(output, _NOTE, Recall(source.detach(), make, autocast, output._version))


def note_on(tensor: Tensor) -> Recall | None:
    """The tensor's note, or None if there is none or it holds no longer."""
    note: Recall | None = getattr(tensor, _NOTE, None)
    return note if note is not None and note.version == tensor._version else None
