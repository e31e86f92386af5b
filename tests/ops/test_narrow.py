"""Products with r columns in the shapes that suit a CPU, against the plain ones in double precision."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from visionlora.ops.linear import linear
from visionlora.ops.narrow import narrow_times, times_narrow

RANK = 8


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def off_by(found: Tensor, exact: Tensor) -> float:
    assert found.shape == exact.shape
    return float((found.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("rows", [3, 512, 1001])
@pytest.mark.parametrize("columns", [5, 64, 520])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_they_are_the_plain_products(threads: int, rows: int, columns: int, dtype: torch.dtype) -> None:
    x, z = torch.randn(rows, columns).to(dtype), torch.randn(rows, RANK).to(dtype)
    factor = torch.randn(RANK, columns).to(dtype)
    allowed = 20 * torch.finfo(dtype).eps
    for tall in (x, x.t().contiguous().t()):
        assert off_by(times_narrow(tall, factor), x.double() @ factor.double().t()) < allowed
        assert off_by(narrow_times(z, tall), z.double().t() @ x.double()) < allowed
        assert times_narrow(tall, factor).dtype == narrow_times(z, tall).dtype == dtype


def test_a_layer_of_many_wide_rows_has_the_gradients_of_the_dense_weight(threads: int) -> None:
    x, A, B = torch.randn(601, 520), torch.randn(RANK, 520), torch.randn(530, RANK)
    weight, gradient = torch.randn(530, 520), torch.randn(601, 530)
    trained = [each.requires_grad_() for each in (x, A, B)]
    exact = [each.detach().double().requires_grad_() for each in trained]
    found = torch.autograd.grad(linear(x, weight, None, A, B, route="factored"), trained, gradient)
    dense = exact[0] @ (weight.double() + exact[2] @ exact[1]).t()
    for mine, theirs in zip(found, torch.autograd.grad(dense, exact, gradient.double()), strict=True):
        assert off_by(mine, theirs) < 1e-5


def test_second_derivatives_go_through_them(threads: int) -> None:
    x, factor = torch.randn(600, 520, requires_grad=True), torch.randn(RANK, 520, requires_grad=True)
    for product, plain in (
        (times_narrow(x, factor), x @ factor.t()),
        (narrow_times(x[:, :RANK], x), x[:, :RANK].t() @ x),
    ):
        weights = torch.randn_like(plain)
        mine = torch.autograd.grad((product * weights).sum(), [x, factor], allow_unused=True)
        theirs = torch.autograd.grad((plain * weights).sum(), [x, factor], allow_unused=True)
        for one, other in zip(mine, theirs, strict=True):
            assert (one is None and other is None) or off_by(one, other.double()) < 1e-5


def test_a_compiler_follows_a_layer_of_many_wide_rows(threads: int) -> None:
    x, A, B = torch.randn(601, 520), torch.randn(RANK, 520), torch.randn(530, RANK)
    weight, trained = torch.randn(530, 520), [each.requires_grad_() for each in (x, A, B)]

    def layer(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return linear(x, weight, None, A, B, route="factored").square().mean()

    torch.compiler.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)  # raises where the graph breaks
    found, expected = (torch.autograd.grad(way(*trained), trained) for way in (compiled, layer))
    for mine, theirs in zip(found, expected, strict=True):
        assert off_by(mine, theirs.double()) < 1e-5
