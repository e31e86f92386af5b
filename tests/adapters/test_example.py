"""What ``verify`` and ``fold_batchnorm`` are given as an example is what the model is called with."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import perturb
from helpers.folded_models import lively
from visionlora.adapters.example import arguments, tensors_in


@dataclass
class Answer:
    logits: Tensor
    boxes: list[Tensor]


class Prompted(nn.Module):
    """An image and points in, by position or by name; a dataclass out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.points = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 4)

    def forward(self, image: Tensor, *, points: Tensor, scale: float = 1.0) -> Answer:
        x = self.bn(self.conv(image)).mean((2, 3))
        return Answer(x + scale * self.points(points), [x])


class Pair(nn.Module):
    """One argument: a tuple of two images, or a mapping of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, pair: Any) -> Tensor:
        left, right = pair.values() if isinstance(pair, dict) else pair
        return self.bn(self.conv(left)) - self.bn(self.conv(right))


IMAGE, OTHER, POINTS = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.rand(2, 2)
TAKEN: dict[str, tuple[type[nn.Module], Any]] = {
    "keywords": (Prompted, {"image": IMAGE, "points": POINTS}),
    "a mapping that is no dict": (Prompted, UserDict(image=IMAGE, points=POINTS)),
    "an ordered dict": (Prompted, OrderedDict(image=IMAGE, points=POINTS, scale=2.0)),
    "a list as one argument": (Pair, [IMAGE, OTHER]),
    "a tuple as one argument": (Pair, ((IMAGE, OTHER),)),
    "a dict as one argument": (Pair, ({"left": IMAGE, "right": OTHER},)),
}


@pytest.mark.parametrize("case", TAKEN)
def test_models_are_verified_and_folded_on_what_they_take(case: str) -> None:
    make, example = TAKEN[case]
    model = lively(make()).eval()
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model)
    found = vl.verify(model, example)
    assert found.effects and not found.without_effect and found.change > 0
    args, kwargs = arguments(example)
    with torch.no_grad():
        before = list(tensors_in(model(*args, **kwargs)))
        assert vl.fold_batchnorm(model, example) == ["bn"]
        torch.testing.assert_close(list(tensors_in(model(*args, **kwargs))), before)


def test_a_tuple_holds_positional_arguments() -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.left(x) + self.right(y)

    model = Adds()
    vl.attach(model, vl.LoRAConfig(rank=1))
    assert vl.verify(model, (POINTS, POINTS)).without_effect == []
    assert vl.verify(model, (POINTS, 0 * POINTS)).without_effect == ["right"]


def test_tensors_are_found_wherever_they_are() -> None:
    a, b, c = torch.rand(1), torch.rand(2), torch.ones(3, dtype=torch.long)
    nested = [Answer(a, [b]), {"x": (c, None, "text", 3)}, UserDict(y=a)]
    assert [id(tensor) for tensor in tensors_in(nested)] == [id(a), id(b), id(c), id(a)]
