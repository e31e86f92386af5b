"""DistributedDataParallel sees every factor in every step (test_ddp.py has the two processes)."""

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import visionlora as vl
from helpers.cases import perturb
from helpers.comparing import trained
from helpers.folded_models import lively

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")


@pytest.fixture
def _group() -> Iterator[None]:
    """A group of this process alone: DDP's own bookkeeping runs all the same."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def model() -> nn.Module:
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(inplace=True)),
        *(nn.Conv2d(8, 8, 5, groups=8, padding=2), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)),
        *(nn.Conv2d(8, 6, 1, stride=2), nn.Flatten(), nn.Linear(54, 5)),
    )
    vl.attach(lively(model), vl.LoRAConfig(rank=2, unfreeze=["8"]))
    perturb(model, 0.1)
    return model.double().train()


def train(model: nn.Module, factors: dict[str, nn.Parameter], x: Tensor, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(factors.values(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("when", ["before", "after", "between"])
@pytest.mark.usefixtures("_group")
def test_no_factor_goes_unused_and_the_steps_are_the_plain_ones(model: nn.Module, when: str) -> None:
    """DDP raises in the second forward if a parameter got no gradient in the first."""
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    plain = copy.deepcopy(model)
    train(plain, trained(plain), x, steps=6)
    if when == "before":
        vl.fold_batchnorm(model, x)
    wrapped = DistributedDataParallel(model)
    if when == "after":
        vl.fold_batchnorm(wrapped.module, x)
    train(wrapped, trained(model), x)
    if when == "between":
        vl.fold_batchnorm(wrapped, x)
    with vl.disabled(model), torch.no_grad():
        model(x)
    train(wrapped, trained(model), x)
    expected = plain.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("_group")
def test_a_layer_that_is_read_by_its_weight_is_reduced_too() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.attention = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.linear(x, self.layer.weight)
            return self.attention(x, x, x)[0]

    model = Reads().double()
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model, 0.1)
    wrapped = DistributedDataParallel(model)
    train(wrapped, trained(model), torch.randn(2, 5, 8, dtype=torch.float64))
    assert all(p.grad.abs().sum() > 0 for p in trained(model).values())
