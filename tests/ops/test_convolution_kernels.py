"""The several ways of a convolution's forward and gradients against torch's own."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.dense_oracle import CONVS, close
from visionlora.ops import convolution
from visionlora.ops.convolution import convolve, input_gradient, plain_convolution, take_every, weight_gradient
from visionlora.ops.geometry import Geometry

CL = torch.channels_last
FORMATS = (torch.contiguous_format, CL)


def torch_gradients(g: Tensor, x: Tensor, kernel: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    stride, padding, dilation, groups = geometry
    zeros = [0] * len(stride)
    found = torch.ops.aten.convolution_backward(
        g, x, kernel, None, stride, padding, dilation, False, zeros, groups, [True, True, False]
    )
    return found[0], found[1]


def compare(x: Tensor, kernel: Tensor, geometry: Geometry) -> None:
    bias = torch.randn(len(kernel), dtype=x.dtype)
    expected = CONVS[x.dim() - 2](x, kernel, bias, *geometry)
    close("output", convolve(x, kernel, bias, geometry), expected, 1e-12)
    close(
        "output without bias",
        convolve(x, kernel, None, geometry),
        expected - bias.view(-1, *[1] * (x.dim() - 2)),
        1e-12,
    )
    g = torch.randn_like(expected)
    grad_x, grad_kernel = torch_gradients(g, x, kernel, geometry)
    close("input's gradient", input_gradient(g, x, kernel, geometry), grad_x, 1e-12)
    close("kernel's gradient", weight_gradient(x, g, kernel.shape, geometry), grad_kernel, 1e-12)


@pytest.fixture
def without_torchs_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Tensor:
        raise AssertionError("took torch's own way")

    monkeypatch.setattr(convolution, "_convolution_backward", fail)


DEPTHWISE = [
    (kernel, stride, padding, dilation)
    for kernel in ((5, 5), (7, 7), (1, 5), (7, 3), (4, 4))
    for stride in ((1, 1), (2, 2), (1, 3))
    for padding in ((0, 0), (2, 2), (3, 1))
    for dilation in ((1, 1), (2, 1), (2, 2))
]


@pytest.mark.parametrize("size", [(15, 14), (13, 16)], ids=str)
def test_the_depthwise_gradient_is_the_sum_over_windows(size: tuple[int, int]) -> None:
    for kernel, stride, padding, dilation in DEPTHWISE:
        geometry = Geometry(stride, padding, dilation, 3)
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        g = torch.randn_like(F.conv2d(x, torch.zeros(3, 1, *kernel, dtype=torch.float64), None, *geometry))
        windows = F.unfold(x, kernel, dilation, padding, stride).view(2, 3, -1, g[0, 0].numel())  # (N, C, taps, P)
        expected = torch.einsum("nctp,ncp->ct", windows, g.flatten(2)).view(3, 1, *kernel)
        found = weight_gradient(x, g, torch.Size((3, 1, *kernel)), geometry)
        close(f"{kernel} {geometry}", found, expected, 1e-12)


def test_a_large_depthwise_kernel_gets_its_gradient_in_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    formats = []
    own = convolution._convolution_backward

    def noted(g: Tensor, x: Tensor, *rest: Any, **which: int) -> Tensor:
        formats.append(tuple(each.is_contiguous(memory_format=CL) for each in (g, x)))
        return own(g, x, *rest, **which)

    monkeypatch.setattr(convolution, "_convolution_backward", noted)
    x = torch.randn(2, 3, 9, 9)
    for side in (3, 5):
        weight_gradient(x, x, torch.Size((3, 1, side, side)), Geometry((1, 1), (side // 2,) * 2, (1, 1), 3))
    assert formats == [(False, False), (True, True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_depthwise_gradient_is_as_exact_in_low_precision(dtype: torch.dtype) -> None:
    x, kernel = torch.randn(4, 3, 12, 12), torch.zeros(3, 1, 5, 5)
    geometry = Geometry((1, 1), (2, 2), (1, 1), 3)
    g = torch.randn(4, 3, 12, 12)
    _, exact = torch_gradients(g.double(), x.double(), kernel.double(), geometry)
    found = weight_gradient(x.to(dtype), g.to(dtype), kernel.shape, geometry)
    assert found.dtype == dtype
    close("gradient", found.double(), exact, 1e-6 if dtype == torch.float32 else 1e-2)


POINTWISE = [((1, 1), (7, 8)), ((2, 2), (7, 8)), ((2, 2), (8, 7)), ((3, 1), (7, 7)), ((1, 2), (5, 1)), ((9, 9), (4, 5))]


@pytest.mark.parametrize(("stride", "size"), POINTWISE, ids=str)
@pytest.mark.parametrize("format", FORMATS)
def test_the_pointwise_gradients_are_torchs(
    stride: tuple[int, int], size: tuple[int, int], format: torch.memory_format
) -> None:
    x = torch.randn(2, 4, *size, dtype=torch.float64).contiguous(memory_format=format)
    compare(x, torch.randn(6, 4, 1, 1, dtype=torch.float64), Geometry(stride, (0, 0), (1, 1), 1))


@pytest.mark.parametrize("format", FORMATS)
def test_the_strided_pointwise_gradient_needs_no_kernel_of_torchs(
    format: torch.memory_format, without_torchs_gradients: None
) -> None:
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64).contiguous(memory_format=format)
    kernel, geometry = torch.randn(6, 4, 1, 1, dtype=torch.float64), Geometry((2, 3), (0, 0), (1, 1), 1)
    g = torch.randn(2, 6, 4, 3, dtype=torch.float64).contiguous(memory_format=format)
    grad = input_gradient(g, x, kernel, geometry)
    assert grad.is_contiguous(memory_format=format)
    close("input's gradient", grad, torch_gradients(g, x, kernel, geometry)[0], 1e-12)
    assert grad[:, :, 1::2].eq(0).all() and grad[:, :, ::2, ::3].ne(0).all()


def test_the_input_may_hold_anything_when_its_gradient_is_asked_for() -> None:
    kernel = torch.randn(6, 4, 1, 1, dtype=torch.float64)
    for stride in (1, 2):
        x = torch.full((2, 4, 7, 7), torch.nan, dtype=torch.float64)
        g = torch.randn(2, 6, -(-7 // stride), -(-7 // stride), dtype=torch.float64)
        assert input_gradient(g, x, kernel, Geometry((stride,) * 2, (0, 0), (1, 1), 1)).isfinite().all()


OTHERS = [
    ((2, 4, 9), (6, 4, 3), Geometry((2,), (1,), (2,), 1)),
    ((2, 4, 9), (6, 4, 1), Geometry((2,), (0,), (1,), 1)),
    ((2, 4, 9), (6, 4, 1), Geometry((1,), (0,), (1,), 1)),
    ((2, 4, 9), (4, 1, 7), Geometry((1,), (3,), (1,), 4)),
    ((2, 4, 5, 6, 7), (6, 4, 3, 3, 3), Geometry((1, 2, 1), (1, 0, 1), (1, 1, 2), 1)),
    ((2, 4, 5, 6, 7), (6, 4, 1, 1, 1), Geometry((1, 2, 3), (0, 0, 0), (1, 1, 1), 1)),
    ((2, 4, 5, 6, 7), (4, 1, 5, 5, 5), Geometry((1, 1, 1), (2, 2, 2), (1, 1, 1), 4)),
    ((2, 4, 9, 9), (6, 4, 1, 1), Geometry((1, 1), (1, 1), (1, 1), 1)),
    ((2, 4, 9, 9), (6, 2, 1, 1), Geometry((2, 2), (0, 0), (1, 1), 2)),
    ((2, 4, 9, 9), (8, 1, 5, 5), Geometry((1, 1), (2, 2), (1, 1), 4)),
    ((2, 4, 9, 9), (4, 1, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 4)),
    ((2, 1, 9, 9), (1, 1, 5, 5), Geometry((1, 1), (2, 2), (1, 1), 1)),
    ((2, 1, 9, 9), (1, 1, 1, 1), Geometry((2, 2), (0, 0), (1, 1), 1)),
]


@pytest.mark.parametrize(("shape", "kernel_shape", "geometry"), OTHERS, ids=str)
def test_every_other_geometry_is_torchs(
    shape: tuple[int, ...], kernel_shape: tuple[int, ...], geometry: Geometry
) -> None:
    for format in FORMATS if len(shape) == 4 else FORMATS[:1]:
        x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=format)
        compare(x, torch.randn(kernel_shape, dtype=torch.float64), geometry)


def test_the_pixels_that_a_stride_takes() -> None:
    x = torch.arange(24.0).view(1, 1, 4, 6)
    assert take_every(x, (1, 1)) is x
    assert torch.equal(take_every(x, (2, 3)), x[:, :, ::2, ::3])
    assert torch.equal(take_every(x[0], (5,)), x[0, :, :, ::5])


def test_a_plain_convolution_follows_autocast_as_torchs_layers_do() -> None:
    for dims, dtype in itertools.product((1, 2, 3), (torch.bfloat16, torch.float16)):
        x, kernel = torch.randn(2, 4, *[5] * dims), torch.randn(6, 4, *[3] * dims)
        geometry = Geometry((2,) * dims, (1,) * dims, (1,) * dims, 1)
        assert torch.equal(plain_convolution(x, kernel, None, geometry), CONVS[dims](x, kernel, None, 2, 1))
        with torch.autocast("cpu", dtype):
            found, expected = plain_convolution(x, kernel, None, geometry), CONVS[dims](x, kernel, None, 2, 1)
        assert found.dtype == dtype and torch.equal(found, expected)
