"""A layer's LoRA anew, of another rank."""

from typing import Any

from torch import nn

from visionlora.adapters.layer import adapters_of
from visionlora.adapters.methods.base import rows_of
from visionlora.adapters.methods.lora import LoRA
from visionlora.adapters.methods.starts import start


def with_new_rank(layer: nn.Module, adapter: str, parameter: str, rank: int, init: str = "kaiming") -> LoRA:
    """Put a new method of this rank, whose update has the old one's scale, in the place of the layer's own.

    ``activate`` has to be told afterwards, for the layer still applies the old one.
    """
    adapters: Any = adapters_of(layer)
    old: LoRA = adapters[adapter][parameter]
    weight = layer._parameters[parameter]
    assert weight is not None
    alpha = old.alpha * old.divisor(rank) / old.divisor(old.rank)
    new = type(old).build(weight, rank, alpha, old.parts, old.rows)
    new.factor_dropout = old.factor_dropout
    start(new, rows_of(weight, new.rows), init)
    adapters[adapter][parameter] = new.train(old.training)
    return new
