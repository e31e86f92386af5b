"""BatchNorm is folded only where it is the convolution's one reader in eval mode and in training mode."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.comparing import agree, gradients, tensors_of
from helpers.folded_models import adapted


class Net(nn.Module):
    """Two pairs of convolution and BatchNorm, and what training does besides."""

    def __init__(self, more: Callable[["Net", Tensor, Tensor], Any], wants: str = "") -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.auxiliary = nn.Conv2d(6, 2, 1)
        self.more, self.wants = more, wants

    def forward(self, x: Tensor, targets: Any = None) -> Any:
        if self.wants == "targets" and self.training and targets is None:
            raise ValueError("targets should not be none when in training mode")
        y = self.conv(x)
        z = self.bn2(self.conv2(self.bn(y).relu()))
        return [z, *tensors_of([self.more(self, y, z)])] if self.training else [z]


def keep(net: Net, y: Tensor, _z: Tensor) -> list[Tensor]:
    net.kept = {"features": [y]}
    return []


IN_TRAINING: dict[str, tuple[Callable[[Net, Tensor, Tensor], Any], list[str]]] = {
    "nothing": (lambda m, y, z: [], ["bn", "bn2"]),
    "an auxiliary head on BatchNorm's output": (lambda m, y, z: m.auxiliary(z), ["bn", "bn2"]),
    "an auxiliary head on the convolution's output": (lambda m, y, z: m.auxiliary(y), ["bn2"]),
    "a function of it": (lambda m, y, z: y.square().mean(), ["bn2"]),
    "it is returned": (lambda m, y, z: y, ["bn2"]),
    "it is kept for a loss": (keep, ["bn2"]),
    "BatchNorm is called on something else": (lambda m, y, z: m.bn(z), ["bn2"]),
    "the convolution is called again": (lambda m, y, z: m.conv2(z), ["bn"]),
    "another convolution's output is read": (lambda m, y, z: m.auxiliary(m.conv2(z)), ["bn"]),
}
"""What a model does in training mode alone, and which BatchNorms can be folded then."""


def agrees_in_both_modes(model: nn.Module, example: Any, call: Callable[..., Any] | None = None) -> list[str]:
    x = example[0] if isinstance(example, tuple) else example
    expected = [gradients(model.train(mode), x, call) for mode in (True, False)]
    folded = vl.fold_batchnorm(model, example)
    for mode, values in zip((True, False), expected, strict=True):
        agree(gradients(model.train(mode), x, call), values, 1e-9)
    return folded


@pytest.mark.parametrize("case", IN_TRAINING)
@pytest.mark.parametrize("mode", [True, False])
def test_what_training_alone_reads_is_not_folded(case: str, mode: bool) -> None:
    more, expected = IN_TRAINING[case]
    model = adapted(Net(more)).double().train(mode)
    assert agrees_in_both_modes(model, torch.randn(4, 3, 8, 8, dtype=torch.float64)) == expected


@pytest.mark.parametrize("case", IN_TRAINING)
def test_a_part_is_looked_at_where_the_whole_wants_targets(case: str) -> None:
    more, expected = IN_TRAINING[case]
    whole = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), Net(more))

    class Wanting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.conv, self.bn = whole, nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor, targets: Any = None) -> Any:
            if self.training and targets is None:
                raise AssertionError("targets should not be none when in training mode")
            first, *others = self.body(x)
            return [self.bn(self.conv(first)), *others]

    model = adapted(Wanting()).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)

    def call(x: Tensor) -> Any:
        return model(x, targets=1)

    inside = [f"body.2.{name}" for name in expected]
    # The pair in the whole itself can't be looked at in training mode.
    assert agrees_in_both_modes(model, x, call) == ["body.1", *inside]
    assert agrees_in_both_modes(model, (x, 1), call) == ["body.1", *inside, "bn"]


def test_where_nothing_runs_in_training_mode_nothing_is_folded() -> None:
    model = adapted(Net(IN_TRAINING["nothing"][0], wants="targets")).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    assert vl.fold_batchnorm(model, x) == []
    assert vl.fold_batchnorm(model, (x, "targets")) == ["bn", "bn2"]
    assert vl.fold_batchnorm(model, {"x": x, "targets": "targets"}) == ["bn", "bn2"]


def test_a_look_at_training_leaves_no_trace() -> None:
    class Counts(Net):
        def __init__(self) -> None:
            super().__init__(IN_TRAINING["nothing"][0])
            self.steps, self.after = 0, nn.Sequential(nn.BatchNorm2d(6), nn.Dropout(0.5))
            self.register_buffer("mean", torch.zeros(6))
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))

        def forward(self, x: Tensor, targets: Any = None) -> Any:
            z = self.after(super().forward(x)[0])
            if self.training:
                self.steps += 1 + random.randrange(3)
                self.seen += 1
                self.mean = 0.9 * self.mean + z.detach().mean((0, 2, 3))
            return z

    model = adapted(Counts(), targets=["conv"]).train()
    model.after[0] = nn.BatchNorm2d(6)  # Not frozen: a training forward changes its statistics.
    modes = {name: module.training for name, module in model.named_modules()}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3), random.seed(3)
    drawn = torch.rand(3), random.random()
    torch.manual_seed(3), random.seed(3)
    assert vl.fold_batchnorm(model, torch.randn(2, 3, 8, 8, generator=torch.Generator())) == ["bn", "bn2"]
    assert torch.equal(torch.rand(3), drawn[0]) and random.random() == drawn[1]
    assert model.steps == 0 and modes == {name: module.training for name, module in model.named_modules()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
