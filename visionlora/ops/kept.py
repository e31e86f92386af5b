"""The output of a layer, where the module after it keeps it for its own backward.

The gradient of a layer's row scale is, for each channel, the sum of output times the output's gradient. To keep every
output would double the memory, and to make it again costs a second forward. But an activation often keeps it, or
what it made of it, which is the same wherever the gradient is not zero.
"""

import torch
from torch import Tensor

_NOTE = "_visionlora_kept"


class Kept:
    """What the layer's backward may find out about the layer's output."""

    def __init__(self) -> None:
        self._value: Tensor | None = None
        self._version = 0
        self._gradient: Tensor | None = None

    def as_it_is(self, output: Tensor) -> None:
        """``output``, the layer's own, stays."""
        self._value, self._version = output.detach(), output._version

    def but_for_zeros(self, made: Tensor) -> None:
        """``made`` by an activation stays; it is the layer's output wherever the activation's gradient is not zero."""
        waiting = [made.detach()]

        def note(gradients: tuple[Tensor, ...], _: tuple[Tensor, ...]) -> None:
            # In the activation's backward, which has made sure that nobody wrote into what it made. Once only: the
            # node outlives its saved tensors.
            if waiting and not torch.is_grad_enabled():
                self.as_it_is(waiting.pop())
                self._gradient = gradients[0]

        assert made.grad_fn is not None
        made.grad_fn.register_hook(note)

    def take(self, gradient: Tensor) -> Tensor | None:
        """A tensor whose product with the output's ``gradient`` is the output's; None if nobody has one. Once only."""
        value, alone = self._value, self._gradient
        self._value = self._gradient = None
        # Another tensor than the activation's is a sum, to which other readers of the output gave their parts.
        if value is None or value._version != self._version or (alone is not None and alone is not gradient):
            return None
        return None if torch.is_grad_enabled() else value


def kept_for(row_scale: Tensor | None) -> Kept | None:
    """A place for the output of a layer whose row scale trains; a compiled graph has no such notes and makes do."""
    if row_scale is None or not row_scale.requires_grad or torch.compiler.is_compiling():
        return None
    return Kept()


def asking(output: Tensor, kept: Kept | None) -> Tensor:
    """``output``, with a note for whoever reads it next."""
    if kept is not None:
        setattr(output, _NOTE, (kept, output._version))
    return output


def asked_to_keep(x: Tensor) -> Kept | None:
    """The note on ``x``, if there is one and nobody has written into ``x`` since; the first reader takes it away."""
    kept, version = vars(x).pop(_NOTE, (None, 0))
    return kept if version == x._version else None


def scale_gradient(output: Tensor, gradient: Tensor, bias: Tensor | None, row_scale: Tensor) -> Tensor:
    """Gradient of the scale ``s`` of ``output = s * u + bias``, (C,).

    Where ``s`` is 0 nothing of ``u`` is left in the output; the gradient then counts as 0.

    Args:
        output: (N, C, ...), or what ``Kept.take`` gives in its place.
        gradient: of the output.
        bias: (C,) or None.
        row_scale: (C,).
    """
    shift = torch.zeros_like(row_scale) if bias is None else bias.to(row_scale.dtype)
    # One pass over both: the gradient of a BatchNorm's weight is the sum of gradient * (x - mean) / sqrt(variance).
    ones, mask = torch.ones_like(shift), [False, True, False]
    # Mean and inverse deviation are given twice, for CUDA's kernels read the saved ones in channels_last.
    product = torch.ops.aten.native_batch_norm_backward(
        gradient, output.to(gradient.dtype), None, shift, ones, shift, ones, False, 0.0, mask
    )[1]
    vanishes = row_scale.abs() < torch.finfo(row_scale.dtype).tiny
    return torch.where(vanishes, 0.0, product.to(row_scale.dtype) / torch.where(vanishes, 1.0, row_scale))
