"""The adapted weight as one dense tensor."""

import threading

import torch
from torch import Tensor


def adapted_weight(
    weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None = None, memory: Tensor | None = None
) -> Tensor:
    """``row_scale * (weight + B @ A)`` in the weight's shape and memory format, in the factors' precision.

    Args:
        weight: (dim0, ...).
        A: (r, ...), the other dimensions as the weight's.
        B: (dim0, r).
        row_scale: (dim0,), or None for ones.
        memory: (dim0, everything else) to write the result to, without a graph.
    """
    if weight.dim() == 2:
        return _adapted_rows(weight, A, B, row_scale, memory)
    if not is_channels_last(weight):
        return _adapted_rows(weight.flatten(1), A.flatten(1), B, row_scale, memory).view(weight.shape)
    # It is a matrix in its own order; in the usual order it would be copied.
    rows, columns = (each.permute(0, 2, 3, 1) for each in (weight, A))
    adapted = _adapted_rows(rows.flatten(1), columns.flatten(1), B, row_scale, memory)
    return adapted.view(rows.shape).permute(0, 3, 1, 2)


def _adapted_rows(rows: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None, memory: Tensor | None) -> Tensor:
    if rows.dtype != B.dtype:
        rows = rows.to(B.dtype)
    if row_scale is None:
        return torch.addmm(rows, B, A, out=memory)
    scale = row_scale.to(B.dtype)[:, None]
    if torch.is_grad_enabled():
        # Where the scale trains, in an order in which the graph keeps nothing of the weight's size.
        trains = row_scale.requires_grad
        return torch.addmm(rows * scale, scale * B, A) if trains else torch.addmm(rows, B, A) * scale
    return torch.addmm(rows, B, A, out=memory).mul_(scale)


class PassingWeight:
    """``adapted_weight`` to use within the block and not to keep: on a CPU it lies in memory that is used again.

    Fresh memory costs a CPU more (page faults) than the product itself. With ``unit_rows`` and a ``row_scale`` the rows
    of ``weight + B @ A`` are divided by their norms before, where no graph is recorded.

    Attributes:
        norms: that the rows were divided by, (dim0,), or None.
    """

    # A class, for contextlib's generators cost as much as the product of a small layer.
    __slots__ = ("_factors", "_memory", "_unit_rows", "norms")

    def __init__(
        self, weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None = None, unit_rows: bool = False
    ) -> None:
        self._factors = (weight, A, B, row_scale)
        self._unit_rows = unit_rows and row_scale is not None
        self._memory: Tensor | None = None
        self.norms: Tensor | None = None

    def __enter__(self) -> Tensor:
        weight, A, B, row_scale = self._factors
        memory = None
        if weight.is_cpu and not _may_be_kept():
            # Taken while it is in use, so that a nested use gets other memory.
            self._memory = _scratch.free.pop(B.dtype, None)
            if self._memory is None or self._memory.numel() < weight.numel():
                self._memory = torch.empty(weight.numel(), dtype=B.dtype)
            memory = self._memory[: weight.numel()].view(len(weight), -1)
        if not self._unit_rows or row_scale is None:
            return adapted_weight(weight, A, B, row_scale, memory)
        adapted = adapted_weight(weight, A, B, None, memory)
        self.norms = row_norms(adapted)
        return adapted.mul_((row_scale / self.norms).to(adapted.dtype).view(-1, *[1] * (adapted.dim() - 1)))

    def __exit__(self, failed: object, *_rest: object) -> None:
        if self._memory is not None and failed is None:  # who failed may still hold it
            _scratch.free[self._memory.dtype] = self._memory


def _may_be_kept() -> bool:
    # In this order, for a compiler does not go past the last.
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_inference_mode_enabled()


class _Scratch(threading.local):
    """A thread's memory that is not in use, by precision."""

    def __init__(self) -> None:
        self.free: dict[torch.dtype, Tensor] = {}


_scratch = _Scratch()


def unit_scale(weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor) -> Tensor:
    """``row_scale`` divided by the norms of the rows of ``weight + B @ A``, which the graph has no part in."""
    with torch.no_grad(), PassingWeight(weight, A, B) as adapted:
        norms = row_norms(adapted)
    return row_scale / norms


def row_norms(adapted: Tensor) -> Tensor:
    """Lengths of the rows of an adapted weight, (dim0,); of a row of zeros the least number above 0."""
    norms = torch.linalg.vector_norm(adapted, dim=tuple(range(1, adapted.dim())))
    return norms.clamp(min=torch.finfo(norms.dtype).tiny)


def row_products(one: Tensor, other: Tensor) -> Tensor:
    """Scalar products of the rows of two weights, (dim0,), in the precision of the second."""
    # Not (one * other).sum(1), which would write a third weight.
    return torch.bmm(one.to(other.dtype).flatten(1)[:, None], other.flatten(1)[:, :, None]).flatten()


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a 4-d tensor is stored in channels_last and not in the usual order as well."""
    return tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
