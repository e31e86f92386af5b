"""Inputs that are made again in the backward: the same bits, or none at all."""

import gc
import weakref
from collections.abc import Callable

import pytest
import timm.layers.activations as timm_activations
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.dense_oracle import Problem, check, conv_problem, linear_problem
from visionlora.adapters import activations
from visionlora.ops.recompute import leave_note, note_on

RUN_AGAIN = {
    "GELU": nn.GELU,
    "GELU tanh": lambda: nn.GELU("tanh"),
    "SiLU": nn.SiLU,
    "SiLU in place": lambda: nn.SiLU(inplace=True),
    "Hardswish": nn.Hardswish,
    "Hardswish in place": lambda: nn.Hardswish(inplace=True),
    "Mish": nn.Mish,
    "Mish in place": lambda: nn.Mish(inplace=True),
    "ELU": lambda: nn.ELU(0.7),
    "Softplus": lambda: nn.Softplus(2),
    "timm GELU": timm_activations.GELU,
    "timm GELUTanh": timm_activations.GELUTanh,
    "timm QuickGELU": timm_activations.QuickGELU,
    "timm Swish": timm_activations.Swish,
    "timm Swish in place": lambda: timm_activations.Swish(inplace=True),
    "timm Mish": timm_activations.Mish,
    "timm HardSwish": timm_activations.HardSwish,
    "timm HardSwish in place": lambda: timm_activations.HardSwish(inplace=True),
}
PROBLEMS = {
    "linear": lambda: linear_problem((3, 5, 8), 6, dtype=torch.float32),
    "conv": lambda: conv_problem((2, 4, 6, 6), 6, (3, 3), row_scale=True, dtype=torch.float32),
    "conv channels_last": lambda: conv_problem(
        (2, 4, 6, 6), 6, (3, 3), dtype=torch.float32, format=torch.channels_last
    ),
}


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> Problem:
    return PROBLEMS[request.param]().requiring()


def gelu(problem: Problem) -> tuple[Tensor, Tensor]:
    """A source, and a note-bearing input that was made from it."""
    source = problem.x * 2
    made = F.gelu(source)
    leave_note(made, source, F.gelu)
    problem.x = made
    return source, made


@pytest.mark.parametrize("name", RUN_AGAIN)
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_gradients_have_the_same_bits_as_without(problem: Problem, name: str, autocast: torch.dtype | None) -> None:
    leaf, results, notes = problem.x, [], []
    for less in (False, True):
        act = RUN_AGAIN[name]()
        if less:
            activations.keep_less(act)
            assert type(act) is not type(RUN_AGAIN[name]())
        for route in ("factored", "dense"):
            with torch.autocast("cpu", autocast, enabled=autocast is not None):
                problem.x = act(leaf * 2)
                recall = note_on(problem.x)
                notes.append(recall is not None)
                output = problem.fused(route, recall)
            inputs = [leaf, problem.bias, problem.A, problem.B]
            gradients = torch.autograd.grad(output.float().square().sum(), inputs)
            results.append((output, *gradients))
    assert notes == [False, False, True, True]
    for plain, less in zip(results[:2], results[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(plain, less, strict=True))


def test_an_elu_in_place_is_left_alone() -> None:
    """It takes its gradient from its output already."""
    act = nn.ELU(inplace=True)
    activations.keep_less(act)
    assert type(act) is nn.ELU and act.inplace


def test_a_note_stays_as_long_as_nobody_writes(problem: Problem) -> None:
    source, made = gelu(problem)
    recall = note_on(made)
    assert recall is not None and recall.source is source
    assert torch.equal(recall.again(source), made)
    made.sum().backward()
    assert note_on(made) is recall


CHANGES: dict[str, Callable[[Tensor], object]] = {
    "added": lambda made: made.add_(1),
    "a part is assigned": lambda made: made.__setitem__(0, 1.0),
    "a view is changed": lambda made: made[:1].mul_(2),
    "changed without a graph": lambda made: made.detach().mul_(2),
    "dropped out": lambda made: F.dropout(made, 0.5, inplace=True),
    "filled": lambda made: made.zero_(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("which", ["made", "source"])
def test_a_note_on_what_was_changed_afterwards_is_ignored(problem: Problem, change: str, which: str) -> None:
    source, made = gelu(problem)
    with torch.no_grad():
        CHANGES[change](made if which == "made" else source)
    assert note_on(made) is None


@pytest.mark.parametrize("operation", [lambda x: x[:], Tensor.clone, lambda x: x + 0, Tensor.detach])
def test_what_is_made_from_a_tensor_has_no_note(problem: Problem, operation: Callable[[Tensor], Tensor]) -> None:
    assert note_on(operation(gelu(problem)[1])) is None


@pytest.mark.parametrize("route", ["factored", "dense"])
def test_a_source_that_is_changed_after_the_layer_ran_is_an_error(problem: Problem, route: str) -> None:
    source, made = gelu(problem)
    output = problem.fused(route, note_on(made))
    with torch.no_grad():
        source.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(output.sum(), [problem.A, problem.B])


@pytest.mark.parametrize("forward_inside", [False, True])
def test_the_autocast_of_the_forward_counts(problem: Problem, forward_inside: bool) -> None:
    """``make`` multiplies matrices, so its result depends on autocast; the backward runs under the opposite."""
    square = torch.randn(problem.x.shape[-1], problem.x.shape[-1])

    def make(x: Tensor) -> Tensor:
        return x @ square

    seen = []
    with torch.autocast("cpu", torch.bfloat16, enabled=forward_inside):
        source = problem.x * 1
        made = make(source)
        leave_note(made, source, make)
    recall = note_on(made)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            seen.append(recall.again(source))
    assert made.dtype == (torch.bfloat16 if forward_inside else torch.float32)
    assert all(torch.equal(again, made) and again.dtype == made.dtype for again in seen)


@pytest.mark.parametrize("route", ["factored", "dense"])
def test_second_derivatives_reach_the_source(route: str) -> None:
    for make in (lambda: linear_problem((3, 4), 3), lambda: conv_problem((1, 2, 4, 4), 2, (3, 3), rank=1)):
        problem = make().requiring()

        def function(x: Tensor, bias: Tensor, A: Tensor, B: Tensor, problem: Problem = problem) -> Tensor:
            source = x * 2
            made = F.gelu(source)
            leave_note(made, source, F.gelu)
            geometry = problem.geometry
            return Problem(made, problem.weight, bias, A, B, geometry).fused(route, note_on(made))

        assert torch.autograd.gradgradcheck(function, tuple(problem.tensors.values()))


@pytest.mark.parametrize("route", ["factored", "dense"])
def test_the_source_is_free_after_the_backward(problem: Problem, route: str) -> None:
    """The loss, and with it the graph, lives on until the next step's."""
    source, made = gelu(problem)
    storage = weakref.ref(source.untyped_storage())
    loss = problem.fused(route, note_on(made)).sum()
    del source, made
    problem.x = torch.empty(0)
    gc.collect()
    assert storage() is not None
    loss.backward()
    gc.collect()
    assert storage() is None, "something still holds the source"


def test_a_made_input_agrees_with_the_dense_weight() -> None:
    for make in (lambda: linear_problem((3, 5, 8), 6), lambda: conv_problem((2, 4, 6, 6), 6, (3, 3), stride=2)):
        problem = make().requiring()
        gelu(problem)
        problem.x.retain_grad()
        for route in ("factored", "dense"):
            check(problem, route)
