"""A mixed batch is every image with its own dense weight."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.dense_oracle import CONV_CASES, CONVS, close
from visionlora.ops.cost import Costs, mixed_route
from visionlora.ops.geometry import Geometry
from visionlora.ops.mixed import conv_beside, conv_by_group, linear_beside, linear_by_group

DTYPE = torch.float64
SPANS = [(0, 2), (2, 3)]


@pytest.mark.parametrize("shape", [(3, 8), (3, 5, 8), (3, 2, 4, 8)], ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_linear(shape: tuple[int, ...], biased: bool) -> None:
    x, weight = torch.randn(shape, dtype=DTYPE), torch.randn(6, 8, dtype=DTYPE)
    bias = torch.randn(6, dtype=DTYPE) if biased else None
    A, B = torch.randn(3, 2, 8, dtype=DTYPE), torch.randn(3, 6, 2, dtype=DTYPE)
    expected = torch.stack([F.linear(x[i], weight + B[i] @ A[i], bias) for i in range(3)])
    close("beside", linear_beside(x, weight, bias, A, B), expected, 1e-12)
    of_spans = [weight + B[i] @ A[i] for i in (0, 2)]
    expected[1] = F.linear(x[1], of_spans[0], bias)
    close("by group", linear_by_group(x, iter(of_spans), bias, SPANS), expected, 1e-12)


@pytest.mark.parametrize(("shape", "n_out", "kernel", "geometry"), CONV_CASES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_conv(
    shape: tuple[int, ...], n_out: int, kernel: tuple[int, ...], geometry: Geometry, channels_last: bool
) -> None:
    x = torch.randn(3, *shape[1:], dtype=DTYPE)
    if channels_last:
        if x.dim() != 4:
            pytest.skip("of images only")
        x = x.to(memory_format=torch.channels_last)
    n_in = shape[1] // geometry.groups
    weight, bias = torch.randn(n_out, n_in, *kernel, dtype=DTYPE), torch.randn(n_out, dtype=DTYPE)
    A, B = torch.randn(3, 2, n_in, *kernel, dtype=DTYPE), torch.randn(3, n_out, 2, dtype=DTYPE)

    def dense(i: int) -> Tensor:
        return weight + (B[i] @ A[i].flatten(1)).view(weight.shape)

    run: Callable[..., Tensor] = CONVS[len(kernel)]
    expected = torch.cat([run(x[i : i + 1], dense(i), bias, *geometry) for i in range(3)])
    close("beside", conv_beside(x, weight, bias, A, B, geometry), expected, 1e-10)
    expected = torch.cat([run(x[:2], dense(0), bias, *geometry), run(x[2:], dense(2), bias, *geometry)])
    found = conv_by_group(x, iter([dense(0), dense(2)]), bias, SPANS, geometry)
    close("by group", found, expected, 1e-10)


def test_many_pixels_go_by_group_and_many_weights_beside() -> None:
    costs = Costs(read=40, vector=16)
    early, late = (64, 64, 1, 1), (512, 512, 3, 3)
    assert mixed_route(early, 8, 1, pixels=56 * 56, images=16, updates=16, by=costs) == "by group"
    assert mixed_route(late, 8, 1, pixels=7 * 7, images=16, updates=16, by=costs) == "beside"
    assert mixed_route(late, 8, 1, pixels=7 * 7, images=1000, updates=1, by=costs) == "by group"
