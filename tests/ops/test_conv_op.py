"""The fused convolution against autograd on the dense kernel."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.dense_oracle import NAMES, check, close, conv_problem, gradients
from visionlora.ops.conv import outer_by_convolution, outer_by_products

CL = torch.channels_last
ROUTES = ("factored", "dense")
# groups, input channels, output channels
GROUPS = {
    "one group": (1, 4, 6),
    "some groups": (2, 4, 6),
    "depthwise": (5, 5, 5),
    "depthwise twice": (5, 5, 10),
}
SIZES = {1: (9,), 2: (7, 8), 3: (5, 6, 7)}
KERNELS = {
    1: [(1,), (3,), (5,)],
    2: [(1, 1), (3, 3), (5, 5), (1, 5), (5, 3), (1, 2)],
    3: [(1, 1, 1), (3, 3, 3), (1, 3, 2)],
}
GRID = [
    (kernel, format, groups)
    for dims, kernels in KERNELS.items()
    for kernel in kernels
    for format in ((torch.contiguous_format, CL) if dims == 2 else (torch.contiguous_format,))
    for groups in GROUPS
]


@pytest.mark.parametrize(("kernel", "format", "groups"), GRID, ids=str)
@pytest.mark.parametrize("route", ROUTES)
def test_every_geometry_agrees_with_the_dense_kernel(
    kernel: tuple[int, ...], format: torch.memory_format, groups: str, route: str
) -> None:
    n_groups, n_in, n_out = GROUPS[groups]
    shape = (2, n_in, *SIZES[len(kernel)])
    for stride, padding, dilation, scaled in itertools.product((1, 2), (0, 2), (1, 2), (False, True)):
        if any(dilation * (side - 1) + 1 > size + 2 * padding for side, size in zip(kernel, shape[2:], strict=True)):
            continue
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": n_groups}
        problem = conv_problem(shape, n_out, kernel, **geometry, row_scale=scaled, bias=not scaled, format=format)
        try:
            check(problem.requiring(), route)
        except AssertionError as error:
            raise AssertionError(f"{geometry}, row scale {scaled}: {error}") from error


UNEVEN = [
    {"kernel": (3, 3), "stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)},
    {"kernel": (1, 1), "stride": (3, 1)},
    {"kernel": (1, 1), "stride": (1, 2)},
    {"kernel": (1, 1), "padding": (1, 2)},
    {"kernel": (1, 1), "stride": (8, 8)},
    {"kernel": (1, 1), "dilation": 3},
    {"kernel": (7, 7), "padding": 3},
    {"kernel": (7, 5), "padding": (3, 0), "stride": (3, 2), "groups": 4},
    {"kernel": (7, 7), "padding": 3, "groups": 4},
    {"kernel": (5, 5), "padding": (4, 1), "dilation": (2, 1), "groups": 4},
    {"kernel": (1, 7), "padding": (0, 6), "dilation": (1, 2), "groups": 4},
]


@pytest.mark.parametrize("geometry", UNEVEN, ids=str)
@pytest.mark.parametrize("format", [torch.contiguous_format, CL])
@pytest.mark.parametrize("route", ROUTES)
def test_sides_may_differ(geometry: dict[str, object], format: torch.memory_format, route: str) -> None:
    check(conv_problem((2, 4, 8, 7), 8, format=format, row_scale=True, **geometry).requiring(), route)


EDGES = {
    "batch of one": {"shape": (1, 4, 5, 5), "n_out": 6, "kernel": (3, 3)},
    "image of one pixel": {"shape": (3, 4, 1, 1), "n_out": 6, "kernel": (1, 1)},
    "one pixel, padded": {"shape": (3, 4, 1, 1), "n_out": 6, "kernel": (3, 3), "padding": 1},
    "one pixel, strided": {"shape": (3, 4, 1, 1), "n_out": 6, "kernel": (1, 1), "stride": 2},
    "one pixel comes out": {"shape": (2, 4, 3, 3), "n_out": 6, "kernel": (3, 3)},
    "one row": {"shape": (2, 4, 1, 7), "n_out": 6, "kernel": (1, 3)},
    "one column, pointwise": {"shape": (2, 4, 7, 1), "n_out": 6, "kernel": (1, 1)},
    "one channel in": {"shape": (2, 1, 5, 5), "n_out": 6, "kernel": (3, 3)},
    "one channel in, pointwise": {"shape": (2, 1, 5, 5), "n_out": 6, "kernel": (1, 1)},
    "one channel out": {"shape": (2, 4, 5, 5), "n_out": 1, "kernel": (3, 3)},
    "one channel out, pointwise": {"shape": (2, 4, 5, 5), "n_out": 1, "kernel": (1, 1)},
    "one channel in and out": {"shape": (2, 1, 6, 6), "n_out": 1, "kernel": (5, 5)},
    "stride leaves pixels out": {"shape": (2, 4, 6, 6), "n_out": 6, "kernel": (3, 3), "stride": 4},
    "kernel as large as the image": {"shape": (2, 4, 5, 5), "n_out": 4, "kernel": (5, 5), "groups": 4},
    "batch of none": {"shape": (0, 4, 5, 5), "n_out": 6, "kernel": (3, 3)},
    "batch of none, pointwise": {"shape": (0, 4, 5, 5), "n_out": 6, "kernel": (1, 1), "stride": 2},
    "batch of none, depthwise": {"shape": (0, 4, 5, 5), "n_out": 4, "kernel": (5, 5), "groups": 4, "padding": 2},
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("format", [torch.contiguous_format, CL])
@pytest.mark.parametrize("rank", [1, 3, 20])
def test_odd_sizes_and_ranks(edge: str, format: torch.memory_format, rank: int) -> None:
    for route in ROUTES:
        check(conv_problem(**EDGES[edge], rank=rank, format=format, row_scale=True).requiring(), route)


PATHS = {
    "3x3": {"kernel": (3, 3), "padding": 1},
    "pointwise": {"kernel": (1, 1)},
    "pointwise strided": {"kernel": (1, 1), "stride": 2},
    "grouped": {"kernel": (3, 3), "groups": 2},
    "depthwise": {"kernel": (5, 5), "padding": 2, "groups": 4},
}
"""A geometry for each way that the code can take."""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("format", [torch.contiguous_format, CL])
@pytest.mark.parametrize("route", ROUTES)
def test_only_the_gradients_that_are_asked_for_are_given(path: str, format: torch.memory_format, route: str) -> None:
    for size in range(1, 5):
        for names in itertools.combinations(NAMES, size):
            problem = conv_problem((2, 4, 5, 6), 4, **PATHS[path], format=format, row_scale=True).requiring(names)
            check(problem, route)
            problem.fused(route).sum().backward()
            assert {name for name, tensor in problem.tensors.items() if tensor.grad is not None} == set(names)
    assert not conv_problem((2, 4, 5, 6), 4, **PATHS[path]).requiring(()).fused(route).requires_grad


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("format", [torch.contiguous_format, CL])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("names", [NAMES, (*NAMES, "row_scale")])
def test_first_and_second_derivatives(
    path: str, format: torch.memory_format, route: str, names: tuple[str, ...]
) -> None:
    problem = conv_problem((2, 4, 3, 3), 4, **PATHS[path], format=format, row_scale=True, rank=1).requiring(names)

    def function(x: Tensor, bias: Tensor, A: Tensor, B: Tensor, row_scale: Tensor) -> Tensor:
        problem.x, problem.bias, problem.A, problem.B, problem.row_scale = x, bias, A, B, row_scale
        return problem.fused(route)

    inputs = tuple(problem.tensors.values())
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("format", [torch.contiguous_format, CL])
@pytest.mark.parametrize("route", ROUTES)
def test_gradients_and_inputs_may_lie_in_memory_in_any_way(path: str, format: torch.memory_format, route: str) -> None:
    problem = conv_problem((2, 4, 6, 6), 4, **PATHS[path], format=format)
    like = problem.dense()
    lying = {
        "expanded": torch.randn((), dtype=torch.float64).expand_as(like),
        "expanded in part": torch.randn(1, 1, *like.shape[2:], dtype=torch.float64).expand_as(like),
        "transposed": torch.randn_like(like.transpose(2, 3).contiguous()).transpose(2, 3),
        "channels_last": torch.randn_like(like).contiguous(memory_format=CL),
        "contiguous": torch.randn_like(like).contiguous(),
        "every second": torch.randn_like(torch.cat([like, like], dim=1))[:, ::2],
        "upside down": torch.randn_like(like).flip(2).transpose(0, 1).contiguous().transpose(0, 1),
    }
    for gradient in lying.values():
        check(problem.requiring(), route, gradient=gradient)
    inputs = {
        "transposed": torch.randn(2, 4, 6, 6, dtype=torch.float64).transpose(2, 3),
        "every second": torch.randn(2, 8, 6, 6, dtype=torch.float64)[:, ::2],
        "cropped": torch.randn(2, 4, 9, 9, dtype=torch.float64).contiguous(memory_format=format)[:, :, 1:7, 2:8],
        "one image twice": torch.randn(1, 4, 6, 6, dtype=torch.float64).expand(2, -1, -1, -1),
        "one channel four times": torch.randn(2, 1, 6, 6, dtype=torch.float64).expand(-1, 4, -1, -1),
    }
    for x in inputs.values():
        problem.x = x.detach()
        check(problem.requiring(), route)


@pytest.mark.parametrize("weight_format", [torch.contiguous_format, CL])
@pytest.mark.parametrize("input_format", [torch.contiguous_format, CL])
@pytest.mark.parametrize("path", PATHS)
def test_input_and_weight_may_have_different_formats(
    path: str, input_format: torch.memory_format, weight_format: torch.memory_format
) -> None:
    problem = conv_problem((2, 4, 6, 6), 4, **PATHS[path])
    problem.x = problem.x.contiguous(memory_format=input_format)
    problem.weight = problem.weight.contiguous(memory_format=weight_format)
    problem.A = problem.A.contiguous(memory_format=weight_format)
    for route in ROUTES:
        check(problem.requiring(), route)


@pytest.mark.parametrize("path", PATHS)
def test_channels_last_stays_channels_last(path: str) -> None:
    problem = conv_problem((2, 4, 6, 6), 4, **PATHS[path], format=CL).requiring()
    for route in ROUTES:
        output = problem.fused(route)
        assert output.is_contiguous(memory_format=CL)
        assert gradients(problem, output, torch.randn_like(output))["x"].is_contiguous(memory_format=CL)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("format", [torch.contiguous_format, CL])
@pytest.mark.parametrize("route", ROUTES)
def test_float32_is_as_exact_as_dense_autograd(path: str, format: torch.memory_format, route: str) -> None:
    kwargs = {**PATHS[path], "groups": {"grouped": 4, "depthwise": 16}.get(path, 1)}
    problem = conv_problem((4, 16, 14, 13), 16, rank=8, format=format, row_scale=True, dtype=torch.float32, **kwargs)
    check(problem.requiring(), route, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("backward_inside", [False, True])
def test_under_autocast_factors_stay_float32(path: str, dtype: torch.dtype, route: str, backward_inside: bool) -> None:
    problem = conv_problem((4, 8, 9, 9), 8, row_scale=True, dtype=torch.float32, **PATHS[path]).requiring()
    expected = problem.dense()
    gradient = torch.randn_like(expected)
    exact = gradients(problem, expected, gradient)
    with torch.autocast("cpu", dtype):
        output = problem.fused(route)
        assert output.dtype == problem.dense().dtype == dtype
        found = gradients(problem, output, gradient.to(dtype)) if backward_inside else None
    found = found or gradients(problem, output, gradient.to(dtype))
    for name, each in found.items():
        assert each.dtype == torch.float32
        assert F.cosine_similarity(each.flatten(), exact[name].flatten(), dim=0) > 0.999, name


@pytest.mark.parametrize("side", [1, 3])
def test_under_autocast_updates_are_added_in_float32_before_the_cast(side: int) -> None:
    """In bf16, 1 + 2^-9 is 1: were they cast first, four updates of 2^-9 would be lost one by one."""
    shape = {"kernel": (side, side), "padding": side // 2}
    problem = conv_problem((1, 1, 1, 1), 1, **shape, rank=4, bias=False, dtype=torch.float32)
    problem.x.fill_(1)
    problem.weight.fill_(1)
    problem.A.fill_(2**-5)
    problem.B.fill_(2**-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert problem.fused().item() == 1 + 2**-7


def test_under_autocast_float64_stays_float64() -> None:
    problem = conv_problem((2, 4, 5, 5), 6, (3, 3)).requiring()
    with torch.autocast("cpu", torch.bfloat16):
        for route in ROUTES:
            check(problem, route)


def test_the_result_may_be_changed_in_place() -> None:
    """As the ReLU and the residual addition that follow do."""
    for path, format in itertools.product(PATHS.values(), (torch.contiguous_format, CL)):
        problem = conv_problem((2, 4, 6, 6), 4, **path, format=format).requiring()
        for route in ROUTES:
            expected = problem.dense()
            output = problem.fused(route)
            gradient = torch.randn_like(expected)
            exact = gradients(problem, (expected + 1).relu(), gradient)
            output += 1
            output.relu_()
            for name, found in gradients(problem, output, gradient).items():
                close(name, found, exact[name], 1e-10)


def test_an_input_that_was_changed_after_the_forward_is_an_error() -> None:
    problem = conv_problem((2, 4, 6, 6), 4, (3, 3)).requiring(("A", "B"))
    for route in ROUTES:
        output = problem.fused(route)
        problem.x.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def test_a_graph_may_be_kept_and_run_twice() -> None:
    for route in ROUTES:
        problem = conv_problem((2, 4, 6, 6), 4, (3, 3)).requiring()
        output = problem.fused(route)
        gradient = torch.randn_like(output)
        inputs = list(problem.tensors.values())
        once = torch.autograd.grad(output, inputs, gradient, retain_graph=True)
        again = torch.autograd.grad(output, inputs, gradient)
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(output, inputs, gradient)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_two_ways_to_the_outer_product_are_equal(dimensions: int) -> None:
    sides = (5, 4, 3)[:dimensions]
    z, g = torch.randn(2, 3, *sides, dtype=torch.float64), torch.randn(2, 7, *sides, dtype=torch.float64)
    torch.testing.assert_close(outer_by_convolution(z, g), outer_by_products(z, g, groups=1))
