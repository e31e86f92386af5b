"""The cost model: which way the factors' gradients take."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers.dense_oracle import Problem, conv_problem, linear_problem
from visionlora.ops.cost import COSTS, Costs, Route, conv_route, costs, linear_route

FORMATS = (torch.contiguous_format, torch.channels_last)

RESNET50_3X3 = [64, 128, 256, 512]
VIT_S = {"qkv": (384, 1152), "proj": (384, 384), "fc1": (384, 1536), "fc2": (1536, 384)}
SIZES = (1, 3, 8, 16, 48, 64, 100, 256, 1024)


EVERY_KIND = pytest.mark.parametrize("by", COSTS.values(), ids=COSTS)


@EVERY_KIND
@pytest.mark.parametrize("channels", RESNET50_3X3)
def test_resnet50s_3x3_layers_go_through_rank_8(channels: int, by: Costs) -> None:
    assert conv_route(channels, (8, channels, 3, 3), 1, by=by) == "factored"


@EVERY_KIND
@pytest.mark.parametrize("layer", VIT_S)
def test_vit_s_linears_go_through_rank_8(layer: str, by: Costs) -> None:
    assert linear_route(*VIT_S[layer], 8, by=by) == "factored"


@EVERY_KIND
@pytest.mark.parametrize("channels", [8, 32, 96, 384, 960])
@pytest.mark.parametrize("side", [3, 5, 7])
def test_depthwise_layers_go_through_the_weight(channels: int, side: int, by: Costs) -> None:
    assert conv_route(channels, (1, 1, side, side), channels, by=by) == "dense"
    assert conv_route(2 * channels, (8, 1, side, side), channels, by=by) == "dense"


@EVERY_KIND
@pytest.mark.parametrize(("n_out", "n_in", "side"), [(16, 3, 3), (8, 8, 3), (16, 16, 1), (4, 100, 1), (32, 3, 1)])
def test_layers_of_few_channels_go_through_the_weight(n_out: int, n_in: int, side: int, by: Costs) -> None:
    assert conv_route(n_out, (8, n_in, side, side), 1, by=by) == "dense"


def test_the_costs_are_those_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Costs(read=10**9, vector=1)
    monkeypatch.setitem(COSTS, torch.backends.cpu.get_cpu_capability(), odd)
    assert costs() == odd and linear_route(384, 384, 8) == "dense"
    monkeypatch.delitem(COSTS, torch.backends.cpu.get_cpu_capability())
    assert costs() in COSTS.values() or costs() == Costs(40, 16), "an unknown processor has those of a known one"


@pytest.mark.parametrize(("n_in", "n_out"), VIT_S.values())
def test_a_high_rank_goes_through_the_weight(n_in: int, n_out: int) -> None:
    assert linear_route(n_in, n_out, min(n_in, n_out)) == "dense"
    assert conv_route(n_out, (n_out, n_in, 3, 3), 1) == "dense"


@pytest.mark.parametrize("n_in", SIZES)
@pytest.mark.parametrize("n_out", SIZES)
@pytest.mark.parametrize("taps", [(1, 1), (3, 3), (1, 7), (5,), (3, 3, 3)])
def test_a_higher_rank_never_turns_to_the_factors(n_in: int, n_out: int, taps: tuple[int, ...]) -> None:
    routes = [conv_route(n_out, (rank, n_in, *taps), 1) for rank in range(1, 300)]
    assert routes == sorted(routes, key=("factored", "dense").index)
    linear = [linear_route(n_in, n_out, rank) for rank in range(1, 300)]
    assert linear == sorted(linear, key=("factored", "dense").index)


def test_more_groups_never_turn_to_the_factors() -> None:
    routes = [conv_route(256, (8, 256 // groups, 3, 3), groups) for groups in (1, 2, 4, 8, 32, 256)]
    assert routes[0] == "factored" and routes[-1] == "dense"
    assert routes == sorted(routes, key=("factored", "dense").index)


def test_a_linear_layer_is_a_pointwise_convolution() -> None:
    for n_in in SIZES:
        for n_out in SIZES:
            assert linear_route(n_in, n_out, 8) == conv_route(n_out, (8, n_in, 1, 1), 1)


class _Sizes(TorchDispatchMode):
    """Notes how many numbers each result has."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.seen |= {each.numel() for each in tree_leaves(result) if isinstance(each, Tensor)}
        return result


def route_taken(problem: Problem, route: Route) -> Route:
    """Only the dense way forms a gradient as large as the weight (the input's gradient is not asked for)."""
    output = problem.requiring(("A", "B")).fused(route)
    with _Sizes() as sizes:
        output.sum().backward()
    return "dense" if problem.weight.numel() in sizes.seen else "factored"


@pytest.mark.parametrize("route", ["auto", "factored", "dense"])
def test_the_route_that_is_asked_for_is_taken(route: Route) -> None:
    for n_in, n_out, rank in ((8, 6, 2), (400, 300, 2), (401, 300, 250)):
        said = linear_route(n_in, n_out, rank, route)
        assert route in ("auto", said)
        assert route_taken(linear_problem((7, n_in), n_out, rank, bias=False), route) == said
    for n_in, n_out, side, format in itertools.product((5, 101), (7, 103), (1, 3), FORMATS):
        problem = conv_problem((1, n_in, 4, 4), n_out, (side, side), bias=False, format=format)
        said = conv_route(n_out, problem.A.shape, 1, route)
        assert route in ("auto", said)
        assert route_taken(problem, route) == said


def test_the_model_finds_both_routes_among_those_layers() -> None:
    """So that the test above means something for ``"auto"``."""
    assert {linear_route(n_in, n_out, rank) for n_in, n_out, rank in ((8, 6, 2), (400, 300, 2))} == {
        "factored",
        "dense",
    }
    assert {conv_route(n, (2, n, 3, 3), 1) for n in (5, 101)} == {"factored", "dense"}
