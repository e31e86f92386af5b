"""ReLU6 and Hardtanh in place from their output: torch's bits, forward and backward."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionlora.adapters import activations
from visionlora.ops.clamp import clamp_

BOUNDS = [(0.0, 6.0), (-1.0, 1.0), (-0.5, math.inf), (2.0, 2.0)]


def values(low: float, high: float, dtype: torch.dtype) -> Tensor:
    """Everything that is special: the bounds and their neighbours, zeros, infinities, NaN."""
    finite = high if math.isfinite(high) else 3.0
    special = torch.tensor([low, finite, 0.0, -0.0, math.inf, -math.inf, math.nan, -1e30, 1e30], dtype=dtype)
    bounds = torch.tensor([low, finite], dtype=dtype)
    beside = [torch.nextafter(bounds, torch.full_like(bounds, to)) for to in (math.inf, -math.inf)]
    return torch.cat([special, *beside, 4 * torch.randn(20, dtype=dtype)])


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(
        torch.cat([one.nan_to_num(), one.signbit().to(one.dtype)]),
        torch.cat([other.nan_to_num(), other.signbit().to(other.dtype)]),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_bits_are_those_of_hardtanh(low: float, high: float, dtype: torch.dtype) -> None:
    start = values(low, high, dtype)
    g = torch.randn(start.shape, dtype=dtype)
    results = []
    for function in (clamp_, F.hardtanh_):
        leaf = start.clone().requires_grad_()
        x = leaf * 1
        y = function(x, low, high)
        assert y.data_ptr() == x.data_ptr()
        results.append((y.detach().clone(), *torch.autograd.grad(y, leaf, g)))
    (y, gradient), (expected, exact) = results
    assert same_bits(y, expected) and same_bits(gradient, exact)


def test_the_gradient_is_zero_at_the_bounds_and_passes_nan() -> None:
    x = torch.tensor([0.0, 6.0, 3.0, math.nan], requires_grad=True)
    clamp_(x * 1, 0.0, 6.0).backward(torch.ones(4))
    assert x.grad.tolist() == [0, 0, 1, 1]


def test_second_derivatives() -> None:
    x = torch.tensor([-2.0, -0.3, 0.4, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: clamp_(x * 1, -1, 1), x)
    assert torch.autograd.gradgradcheck(lambda x: clamp_(x * 1, -1, 1) ** 2, x)


@pytest.mark.parametrize("view", [lambda x: x[:, :2], lambda x: x.view(-1), lambda x: x.t(), lambda x: x[::2]])
def test_a_view_may_be_clamped_in_place(view: object) -> None:
    gradients = []
    for function in (clamp_, F.hardtanh_):
        leaf = torch.linspace(-2, 8, 12).view(3, 4).requires_grad_()
        base = leaf * 1
        function(view(base), 0.0, 6.0)
        (base**2).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_what_torch_refuses_in_place_is_refused() -> None:
    leaf = torch.zeros(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        clamp_(leaf, 0.0, 6.0)
    x = leaf * 1
    y = x.exp()
    clamp_(y, 0.0, 6.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("make", [nn.ReLU6, nn.Hardtanh, lambda inplace: nn.Hardtanh(-2, 0.5, inplace)])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("from_leaf", [False, True])
def test_the_modules_give_the_bits_of_their_class(make: object, inplace: bool, from_leaf: bool) -> None:
    plain, less = make(inplace=inplace), make(inplace=inplace)
    activations.keep_less(less)
    start = values(-2.0, 6.0, torch.float32)
    results = []
    for act in (plain, less):
        leaf = start.clone().requires_grad_()
        try:
            y = act(leaf if from_leaf else leaf * 1)
            results.append((y.detach(), *torch.autograd.grad(y.nansum(), leaf)))
        except RuntimeError as error:
            results.append(str(error))
    if from_leaf and inplace:
        assert results[0] == results[1] and "leaf Variable" in results[0]
    else:
        assert all(same_bits(a, b) for a, b in zip(*results, strict=True))
    with torch.no_grad():
        assert same_bits(less(start.clone()), plain(start.clone()))
    activations.keep_all(less)
    assert type(less) is type(plain)


@pytest.mark.parametrize("make", [nn.ReLU6, nn.Hardtanh])
def test_what_they_made_may_be_changed_or_it_is_said_how(make: object) -> None:
    gradients = []
    for keeps_less in (False, True):
        act, leaf = make(), torch.linspace(-2, 8, 12).requires_grad_()
        if keeps_less:
            activations.keep_less(act)
        y = act(leaf * 1)
        y += 1
        gradients.append(torch.autograd.grad(y.square().sum(), leaf)[0])
    assert torch.equal(*gradients)
    act = make(inplace=True)
    activations.keep_less(act)
    y = act(leaf * 1)
    y += 1
    with pytest.raises(RuntimeError, match="build it with inplace=False"):
        y.sum().backward()
