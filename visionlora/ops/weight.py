"""The adapted weight as one dense tensor."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_scratch = threading.local()


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
    # A kernel in channels_last is a matrix in its own order; in the usual order it would be copied.
    order = [0, 2, 3, 1] if is_channels_last(weight) else list(range(weight.dim()))
    rows = weight.permute(order).flatten(1).to(B.dtype)  # (dim0, everything else)
    columns = A.permute(order).flatten(1)
    if row_scale is None:
        adapted = torch.addmm(rows, B, columns, out=memory)
    else:
        scale = row_scale.to(B.dtype)[:, None]
        scaled = torch.mul(rows, scale, out=memory)
        adapted = torch.addmm(scaled, scale * B, columns, out=memory)
    shape = [weight.shape[dim] for dim in order]
    return adapted.view(shape).permute([order.index(dim) for dim in range(weight.dim())])


@contextmanager
def passing_weight(weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None = None) -> Iterator[Tensor]:
    """``adapted_weight`` to use within the block and not to keep: on a CPU it lies in memory that is used again.

    Fresh memory costs a CPU more (page faults) than the product itself.
    """
    keeps = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_inference_mode_enabled()
    if keeps or not weight.is_cpu:
        yield adapted_weight(weight, A, B, row_scale)
        return
    # Taken while it is in use, so that a nested use gets other memory.
    memory: Tensor | None = vars(_scratch).pop(str(B.dtype), None)
    if memory is None or memory.numel() < weight.numel():
        memory = torch.empty(weight.numel(), dtype=B.dtype)
    yield adapted_weight(weight, A, B, row_scale, memory[: weight.numel()].view(len(weight), -1))
    vars(_scratch)[str(B.dtype)] = memory


@contextmanager
def scaled_weight(
    weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None, unit_rows: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """``passing_weight`` with the rows of ``weight + B @ A`` divided by their norms before, if asked; and the norms.

    Only where no graph is recorded.
    """
    with passing_weight(weight, A, B, None if unit_rows else row_scale) as adapted:
        if not unit_rows or row_scale is None:
            yield adapted, None
            return
        norms = row_norms(adapted)
        yield adapted.mul_((row_scale / norms).to(adapted.dtype).view(-1, *[1] * (adapted.dim() - 1))), norms


def unit_scale(weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor) -> Tensor:
    """``row_scale`` divided by the norms of the rows of ``weight + B @ A``, which the graph has no part in."""
    with torch.no_grad(), passing_weight(weight, A, B) as adapted:
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
