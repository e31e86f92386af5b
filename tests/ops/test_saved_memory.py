"""What is kept between forward and backward: each activation once, and never a dense adapted weight."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.dense_oracle import conv_problem, linear_problem, saved_storages
from visionlora.adapters.layer import adapted_layers
from visionlora.errors import InputError

ROUTES = ("factored", "dense")
FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("side", [1, 3])
def test_a_convolution_keeps_its_input_and_its_factors(route: str, format: torch.memory_format, side: int) -> None:
    problem = conv_problem((2, 40, 6, 6), 30, (side, side), row_scale=True, format=format).requiring()
    known = [problem.x, problem.weight, problem.A, problem.B, problem.row_scale]
    kept = saved_storages(lambda: problem.fused(route))
    assert set(kept) == {tensor.untyped_storage().data_ptr() for tensor in known}


@pytest.mark.parametrize("route", ROUTES)
def test_a_linear_layer_keeps_at_most_r_numbers_a_row_beside(route: str) -> None:
    problem = linear_problem((100, 40), 30, rank=2).requiring()
    known = [problem.x, problem.weight, problem.A, problem.B]
    assert problem.x.untyped_storage().data_ptr() in saved_storages(lambda: problem.fused(route))
    assert sum(saved_storages(lambda: problem.fused(route), but=known).values()) <= 100 * 2 * 8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_cast_input_is_kept_and_no_cast_weight(dtype: torch.dtype) -> None:
    problem = conv_problem((2, 40, 6, 6), 30, (3, 3), dtype=torch.float32).requiring()
    known = [problem.weight, problem.A, problem.B]

    def forward() -> Tensor:
        with torch.autocast("cpu", dtype):
            return problem.fused("factored")

    assert list(saved_storages(forward, but=known).values()) == [problem.x.numel() * 2]


def adapted(model: nn.Module, route: str, **config: object) -> nn.Module:
    vl.attach(model, vl.LoRAConfig(rank=2, **config))
    for _, layer in adapted_layers(model):
        nn.init.normal_(layer.adapters["default"]["weight"].lora_B)
    return vl.set_memory(vl.set_route(model, route), "low")


def activations_kept(model: nn.Module, x: Tensor, at_least: int) -> list[int]:
    """Bytes of every kept storage that is no tensor of the model's and at least as large as an activation."""
    own = [*model.parameters(), *model.buffers()]
    kept = saved_storages(lambda: model(x), but=own).values()
    return sorted(size for size in kept if size >= at_least)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("inplace", [False, True])
def test_a_folded_chain_keeps_one_activation_for_each_layer(route: str, inplace: bool) -> None:
    layers = [[nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace)] for _ in range(4)]
    model = adapted(nn.Sequential(*itertools.chain(*layers)), route)
    x = torch.randn(2, 8, 10, 10, requires_grad=True)
    unfolded = activations_kept(model, x, x.nbytes)
    assert len(vl.fold_batchnorm(model, x)) == 4
    # The inputs of four convolutions, and what the last ReLU gives.
    assert activations_kept(model, x, x.nbytes) == [x.nbytes] * 5
    assert len(unfolded) == 9


@pytest.mark.parametrize("route", ROUTES)
def test_a_folded_chain_without_adapters_in_it_keeps_one_activation_too(route: str) -> None:
    layers = [[nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True)] for _ in range(4)]
    model = adapted(nn.Sequential(*itertools.chain(*layers)), route, targets=["0", "9"])
    x = torch.randn(2, 8, 10, 10, requires_grad=True)
    vl.fold_batchnorm(model, x)
    assert len(activations_kept(model, x, x.nbytes)) == 5


PAIRS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "GELU, Linear": (lambda: nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16)), (100, 16)),
    "SiLU, Conv": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.SiLU(inplace=True), nn.Conv2d(8, 8, 3)),
        (2, 8, 10, 10),
    ),
    "Hardswish, Conv": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardswish(inplace=True), nn.Conv2d(8, 8, 1)),
        (2, 8, 10, 10),
    ),
    "ReLU6, Conv": (lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU6(), nn.Conv2d(8, 8, 1)), (2, 8, 10, 10)),
    "ReLU6 in place, Conv": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU6(True), nn.Conv2d(8, 8, 1)),
        (2, 8, 10, 10),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("route", ROUTES)
def test_between_two_layers_one_tensor_is_kept(pair: str, route: str) -> None:
    make, shape = PAIRS[pair]
    model, x = adapted(make(), route), torch.randn(shape)
    assert activations_kept(model, x, x.nbytes) == [x.nbytes] * 2, "the input, and one tensor in between"
    assert len(activations_kept(make(), x, x.nbytes)) == 3, "and a plain model keeps two in between"
    kept_fast = len(activations_kept(vl.set_memory(model, "fast"), x, x.nbytes))
    assert kept_fast == (2 if pair == "ReLU6 in place, Conv" else 3), (
        "whose gradient follows from its output has nothing to run again"
    )


def test_a_model_computes_the_same_bits_with_less_memory() -> None:
    for make, shape in PAIRS.values():
        torch.manual_seed(1)
        model, x = adapted(make(), "auto"), torch.randn(shape, requires_grad=True)
        trained = [x, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
        low, fast = (
            torch.autograd.grad(vl.set_memory(model, memory)(x).square().sum(), trained) for memory in ("low", "fast")
        )
        assert all(torch.equal(a, b) for a, b in zip(low, fast, strict=True))


def test_an_unknown_memory_is_refused() -> None:
    with pytest.raises(InputError, match="no memory 'lo' .did you mean 'low'"):
        vl.set_memory(adapted(nn.Linear(3, 3), "auto"), "lo")


def test_what_is_kept_can_be_put_elsewhere_and_brought_back() -> None:
    """As offloading to the CPU or to a disk does: nothing is used that has not gone through the hooks."""
    model = adapted(PAIRS["GELU, Linear"][0](), "factored")
    x = torch.randn(100, 16, requires_grad=True)
    factors = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(model(x).square().sum(), [x, *factors])
    brought_back = []

    def unpack(copy: tuple[Tensor]) -> Tensor:
        brought_back.append(copy[0])
        return copy[0]

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (tensor.detach().clone(),), unpack):
        output = model(x)
    for tensor in (x, *model.state_dict().values()):
        tensor.detach().fill_(torch.nan)
    # The loss itself keeps the output, outside the hooks.
    found = torch.autograd.grad(output.square().sum(), [x, *factors])
    assert brought_back and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
