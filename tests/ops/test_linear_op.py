"""The fused linear layer against autograd on the dense weight."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.dense_oracle import NAMES, Problem, check, close, gradients, linear_problem

ROUTES = ("factored", "dense")
SHAPES = [(5, 8), (2, 5, 8), (2, 3, 4, 8), (8,), (1, 8), (100, 8), (0, 8), (2, 0, 8), (1, 1, 1), (40, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n_out", [1, 6, 16])
@pytest.mark.parametrize("rank", [1, 2, 20])
def test_every_shape_agrees_with_the_dense_weight(shape: tuple[int, ...], n_out: int, rank: int) -> None:
    for route, bias in itertools.product(ROUTES, (True, False)):
        check(linear_problem(shape, n_out, rank, bias).requiring(), route)


@pytest.mark.parametrize("rows", [3, 100])
@pytest.mark.parametrize("route", ROUTES)
def test_only_the_gradients_that_are_asked_for_are_given(rows: int, route: str) -> None:
    for size in range(1, 5):
        for names in itertools.combinations(NAMES, size):
            problem = linear_problem((rows, 8), 6).requiring(names)
            check(problem, route)
            problem.fused(route).sum().backward()
            assert {name for name, tensor in problem.tensors.items() if tensor.grad is not None} == set(names)
    assert not linear_problem((rows, 8), 6).requiring(()).fused(route).requires_grad


@pytest.mark.parametrize("shape", [(2, 8), (2, 3, 8), (30, 8), (8,)], ids=str)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("names", [NAMES, (*NAMES, "row_scale")])
def test_first_and_second_derivatives(shape: tuple[int, ...], route: str, names: tuple[str, ...]) -> None:
    problem = linear_problem(shape, 5, row_scale=True).requiring(names)

    def function(x: Tensor, bias: Tensor, A: Tensor, B: Tensor, row_scale: Tensor) -> Tensor:
        return Problem(x, problem.weight, bias, A, B, row_scale=row_scale).fused(route)

    inputs = tuple(problem.tensors.values())
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("route", ROUTES)
def test_gradients_and_inputs_may_lie_in_memory_in_any_way(route: str) -> None:
    problem = linear_problem((4, 6, 8), 6)
    kind = {"dtype": torch.float64}
    lying = [
        torch.randn((), **kind).expand(4, 6, 6),
        torch.randn(1, 6, 1, **kind).expand(4, 6, 6),
        torch.randn(4, 6, 6, **kind).transpose(1, 2),
        torch.randn(6, 4, 6, **kind).transpose(0, 1),
        torch.randn(4, 6, 12, **kind)[..., ::2],
    ]
    for gradient in lying:
        check(problem.requiring(), route, gradient=gradient)
    inputs = [
        torch.randn(4, 8, 6, **kind).transpose(1, 2),
        torch.randn(6, 4, 8, **kind).transpose(0, 1),
        torch.randn(4, 12, 8, **kind)[:, ::2],
        torch.randn(4, 1, 8, **kind).expand(-1, 6, -1),
        torch.randn(4, 6, 1, **kind).expand(-1, -1, 8),
    ]
    for x in inputs:
        problem.x = x
        check(problem.requiring(), route)


@pytest.mark.parametrize("rows", [3, 200])
@pytest.mark.parametrize("route", ROUTES)
def test_float32_is_as_exact_as_dense_autograd(rows: int, route: str) -> None:
    check(linear_problem((rows, 64), 48, rank=8, dtype=torch.float32).requiring(), route, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [3, 200])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("backward_inside", [False, True])
def test_under_autocast_factors_stay_float32(dtype: torch.dtype, rows: int, route: str, backward_inside: bool) -> None:
    problem = linear_problem((rows, 16), 12, rank=4, dtype=torch.float32).requiring()
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


def test_under_autocast_updates_are_added_in_float32_before_the_cast() -> None:
    """In bf16, 1 + 2^-9 is 1: were they cast first, four updates of 2^-9 would be lost one by one."""
    problem = linear_problem((1, 1), 1, rank=4, bias=False, dtype=torch.float32)
    problem.x.fill_(1)
    problem.weight.fill_(1)
    problem.A.fill_(2**-5)
    problem.B.fill_(2**-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert problem.fused().item() == 1 + 2**-7


def test_under_autocast_float64_stays_float64() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for route in ROUTES:
            check(linear_problem((2, 5, 8), 6).requiring(), route)


def test_an_input_that_is_bf16_already_is_not_cast_back() -> None:
    problem = linear_problem((3, 8), 6, dtype=torch.float32)
    problem.x = problem.x.bfloat16()
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert problem.requiring().fused().dtype == torch.bfloat16


def test_the_result_may_be_changed_in_place() -> None:
    for shape, bias, route in itertools.product(SHAPES[:4], (True, False), ROUTES):
        problem = linear_problem(shape, 6, bias=bias).requiring()
        expected, output = problem.dense(), problem.fused(route)
        gradient = torch.randn_like(expected)
        exact = gradients(problem, (expected + 1).relu(), gradient)
        output += 1
        output.relu_()
        for name, found in gradients(problem, output, gradient).items():
            close(name, found, exact[name], 1e-10)


def test_an_input_or_factor_that_was_changed_after_the_forward_is_an_error() -> None:
    for route, name in itertools.product(ROUTES, ("x", "A", "B")):
        problem = linear_problem((3, 8), 6).requiring()
        output = problem.fused(route)
        with torch.no_grad():
            problem.tensors[name].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def test_a_graph_may_be_kept_and_run_twice() -> None:
    for route in ROUTES:
        problem = linear_problem((30, 8), 6).requiring()
        output = problem.fused(route)
        gradient = torch.randn_like(output)
        inputs = list(problem.tensors.values())
        once = torch.autograd.grad(output, inputs, gradient, retain_graph=True)
        again = torch.autograd.grad(output, inputs, gradient)
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
