"""Products of a tall matrix (rows, n) with r columns, where r is a rank: narrow, and so bound by memory.

A CPU's library packs the tall matrix first, as for a product that would use it often, or runs on one thread. What
follows are the same products in shapes for which it does neither.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_WIDE = 512
"""Columns from which a 1 x 1 convolution reads them faster than a matrix product does (two AVX2 cores: 1.5 times)."""

_PIECES = 4
"""Of the rows, in a sum over them: enough for the threads of a small machine."""


def times_narrow(x: Tensor, factor: Tensor) -> Tensor:
    """``x @ factor.t()``: x (rows, n), factor (r, n) -> (rows, r)."""
    if x.is_cpu:
        factor = factor.contiguous()  # on the right of a product it then takes half as long
    if not _pays(x) or x.shape[1] < _WIDE:
        return x @ factor.t()
    image = x.view(1, -1, 1, x.shape[1]).permute(0, 3, 1, 2)  # (1, n, rows, 1), in channels_last
    return F.conv2d(image, factor.reshape(*factor.shape, 1, 1)).view(len(factor), -1).t()


def narrow_times(z: Tensor, x: Tensor) -> Tensor:
    """``z.t() @ x``: z (rows, r), x (rows, n) -> (r, n)."""
    if not x.is_cpu:
        return z.t() @ x
    if not _pays(x) or _on_one_thread():
        return z.t().contiguous() @ x
    rows = len(x) - len(x) % _PIECES
    narrow, wide = (each[:rows].view(_PIECES, -1, each.shape[1]) for each in (z.contiguous(), x))
    product = torch.bmm(narrow.transpose(1, 2), wide).sum(0)
    return product if rows == len(x) else product + z[rows:].t() @ x[rows:]


def times_narrow_rows(g: Tensor, z: Tensor) -> Tensor:
    """``g.t() @ z``: g (rows, n), z (rows, r) -> (n, r)."""
    # On a CPU the narrow matrix stands on the left, or it would take twice as long.
    return narrow_times(z, g).t() if g.is_cpu else g.t() @ z


def _on_one_thread() -> bool:
    # Not asked while compiling: a compiler would break its graph there, and so leave the whole step uncompiled.
    return not torch.compiler.is_compiling() and torch.get_num_threads() == 1


def _pays(x: Tensor) -> bool:
    return x.is_cpu and x.dtype == torch.float32 and x.is_contiguous() and len(x) >= _WIDE
