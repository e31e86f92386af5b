"""The branch beside a layer is the dense update."""

import pytest
import torch
import torch.nn.functional as F

from helpers.dense_oracle import CONV_CASES, CONVS, close
from visionlora.ops.branch import conv_branch, linear_branch
from visionlora.ops.geometry import Geometry

DTYPE = torch.float64


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (8,), (0, 8)], ids=str)
@pytest.mark.parametrize("rank", [1, 3, 20])
def test_linear(shape: tuple[int, ...], rank: int) -> None:
    x = torch.randn(shape, dtype=DTYPE, requires_grad=True)
    A = torch.randn(rank, 8, dtype=DTYPE, requires_grad=True)
    B = torch.randn(6, rank, dtype=DTYPE, requires_grad=True)
    found, expected = linear_branch(x, A, B), F.linear(x, B @ A)
    close("output", found, expected, 1e-10)
    g = torch.randn_like(expected)
    for one, other in zip(*(torch.autograd.grad(y, (x, A, B), g) for y in (found, expected)), strict=True):
        close("gradient", one, other, 1e-10)


@pytest.mark.parametrize(("shape", "n_out", "kernel", "geometry"), CONV_CASES, ids=str)
@pytest.mark.parametrize("rank", [1, 3, 20])
def test_conv(shape: tuple[int, ...], n_out: int, kernel: tuple[int, ...], geometry: Geometry, rank: int) -> None:
    n_in = shape[1] // geometry.groups
    x = torch.randn(shape, dtype=DTYPE, requires_grad=True)
    A = torch.randn(rank, n_in, *kernel, dtype=DTYPE, requires_grad=True)
    B = torch.randn(n_out, rank, dtype=DTYPE, requires_grad=True)
    dense = (B @ A.flatten(1)).view(n_out, n_in, *kernel)
    found, expected = conv_branch(x, A, B, geometry), CONVS[len(kernel)](x, dense, None, *geometry)
    close("output", found, expected, 1e-10)
    g = torch.randn_like(expected)
    for one, other in zip(*(torch.autograd.grad(y, (x, A, B), g) for y in (found, expected)), strict=True):
        close("gradient", one, other, 1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_factors_stay_float32_whatever_the_input_is(dtype: torch.dtype) -> None:
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1)
    A, B = torch.randn(2, 4, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    kernel = torch.randn(2, 4, 3, 3, requires_grad=True)
    for x, run in (
        (torch.randn(3, 4), lambda x: linear_branch(x, A, B)),
        (torch.randn(2, 4, 5, 5), lambda x: conv_branch(x, kernel, B, geometry)),
    ):
        assert run(x.to(dtype)).dtype == dtype
        with torch.autocast("cpu", dtype):
            output = run(x)
        assert output.dtype == dtype
        output.float().sum().backward()
    assert A.grad.dtype == B.grad.dtype == kernel.grad.dtype == torch.float32
