"""What the fused operations must agree with: plain autograd on the dense weight ``row_scale * (W + B @ A)``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.ops.conv import conv
from visionlora.ops.cost import Route
from visionlora.ops.geometry import Geometry
from visionlora.ops.linear import linear
from visionlora.ops.recompute import Recall

CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_CASES = [
    ((2, 4, 9), 6, (3,), Geometry((2,), (1,), (2,), 1)),
    ((2, 4, 9), 6, (3,), Geometry((1,), (1,), (1,), 2)),
    ((2, 4, 7, 8), 6, (3, 3), Geometry((1, 1), (1, 1), (1, 1), 1)),
    ((2, 4, 7, 8), 6, (1, 1), Geometry((2, 2), (0, 0), (1, 1), 1)),
    ((2, 4, 7, 8), 6, (1, 5), Geometry((1, 2), (0, 2), (1, 1), 2)),
    ((2, 6, 7, 8), 9, (3, 3), Geometry((2, 1), (0, 1), (1, 2), 3)),
    ((2, 4, 7, 8), 4, (5, 5), Geometry((1, 1), (2, 2), (1, 1), 4)),
    ((2, 4, 7, 8), 8, (3, 3), Geometry((1, 1), (1, 1), (1, 1), 4)),
    ((1, 4, 1, 1), 6, (1, 1), Geometry((1, 1), (0, 0), (1, 1), 1)),
    ((2, 4, 5, 6, 7), 6, (3, 1, 2), Geometry((1, 2, 1), (1, 0, 0), (1, 1, 2), 2)),
]
"""Input shape, output channels, kernel and geometry of convolutions of every kind."""
NAMES = ("x", "bias", "A", "B")


@dataclass
class Problem:
    """A layer's input and tensors, all that may require gradients among them, and the gradient of its output."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    A: Tensor
    B: Tensor
    geometry: Geometry | None = None
    row_scale: Tensor | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        named = {"x": self.x, "bias": self.bias, "A": self.A, "B": self.B, "row_scale": self.row_scale}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def fused(self, route: Route = "auto", recall: Recall | None = None) -> Tensor:
        if self.geometry is None:
            return linear(self.x, self.weight, self.bias, self.A, self.B, self.row_scale, False, route, recall)
        return conv(
            self.x, self.weight, self.bias, self.A, self.B, self.geometry, self.row_scale, route=route, recall=recall
        )

    def dense(self) -> Tensor:
        weight = self.weight + (self.B @ self.A.flatten(1)).view(self.weight.shape)
        if self.row_scale is not None:
            weight = self.row_scale.view(-1, *[1] * (weight.dim() - 1)) * weight
        if self.geometry is None:
            return F.linear(self.x, weight, self.bias)
        return CONVS[weight.dim() - 2](self.x, weight, self.bias, *self.geometry)

    def requiring(self, names: Sequence[str] = NAMES) -> "Problem":
        for name, tensor in self.tensors.items():
            tensor.requires_grad_(name in names)
        return self


def conv_problem(
    shape: Sequence[int],
    n_out: int,
    kernel: Sequence[int],
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int = 0,
    dilation: Sequence[int] | int = 1,
    groups: int = 1,
    rank: int = 2,
    bias: bool = True,
    row_scale: bool = False,
    format: torch.memory_format = torch.contiguous_format,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """A random one; ``shape`` is (N, Cin, ...)."""
    spatial = len(kernel)
    steps, pads, gaps = (
        (value,) * spatial if isinstance(value, int) else tuple(value) for value in (stride, padding, dilation)
    )
    n_in = shape[1] // groups
    return Problem(
        x=torch.randn(shape, dtype=dtype).contiguous(memory_format=format),
        weight=torch.randn(n_out, n_in, *kernel, dtype=dtype).contiguous(memory_format=format),
        bias=torch.randn(n_out, dtype=dtype) if bias else None,
        A=torch.randn(rank, n_in, *kernel, dtype=dtype),
        B=torch.randn(n_out, rank, dtype=dtype),
        geometry=Geometry(steps, pads, gaps, groups),
        row_scale=torch.randn(n_out, dtype=dtype) if row_scale else None,
    )


def linear_problem(
    shape: Sequence[int],
    n_out: int,
    rank: int = 2,
    bias: bool = True,
    row_scale: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """A random one; ``shape`` is (..., in)."""
    return Problem(
        x=torch.randn(shape, dtype=dtype),
        weight=torch.randn(n_out, shape[-1], dtype=dtype),
        bias=torch.randn(n_out, dtype=dtype) if bias else None,
        A=torch.randn(rank, shape[-1], dtype=dtype),
        B=torch.randn(n_out, rank, dtype=dtype),
        row_scale=torch.randn(n_out, dtype=dtype) if row_scale else None,
    )


def gradients(problem: Problem, output: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    wanted = {name: tensor for name, tensor in problem.tensors.items() if tensor.requires_grad}
    found = torch.autograd.grad(output, list(wanted.values()), gradient)
    return dict(zip(wanted, found, strict=True))


def check(problem: Problem, route: Route, tolerance: float = 1e-10, gradient: Tensor | None = None) -> None:
    """Output and every gradient that is asked for, fused and dense."""
    expected = problem.dense()
    output = problem.fused(route)
    assert output.dtype == expected.dtype
    close("output", output, expected, tolerance)
    if gradient is None:
        gradient = torch.randn_like(expected)
    exact = gradients(problem, expected, gradient)
    for name, found in gradients(problem, output, gradient).items():
        close(name, found, exact[name], tolerance)


def close(name: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within ``tolerance`` of the expected tensor's norm."""
    assert found.shape == expected.shape, name
    size = torch.linalg.vector_norm(expected.detach().double())
    difference = torch.linalg.vector_norm((found - expected).detach().double())
    assert difference <= tolerance * size, f"{name}: off by {difference / size:.2g}"


def saved_storages(forward: Callable[[], object], but: Sequence[Tensor] = ()) -> dict[int, int]:
    """Storages that ``forward`` keeps for the backward: address -> bytes, without those of the tensors ``but``."""
    left_out = {tensor.untyped_storage().data_ptr() for tensor in but}
    found: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in left_out:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other storage gets the same address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive.append(forward())
    return found
