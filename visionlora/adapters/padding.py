"""Adapters of different ranks in the same shapes, so that one can take another's place in a compiled model."""

from torch import nn

from visionlora.adapters.layer import adapted_layers, adapters_of, methods_of
from visionlora.adapters.methods.base import Method
from visionlora.errors import InputError


def pad_ranks(model: nn.Module) -> nn.Module:
    """Pad the factors of every adapter on the model to the largest rank that its layer has, with zeros.

    Each adapter does what it did: the rows and columns of zeros get gradients of zero, and alpha grows with the rank.
    The factors are new parameters, so make an optimizer afterwards. A file that is then saved has the padded shapes.

    Args:
        model: with adapters.

    Returns:
        the same model.

    Raises:
        InputError: the ranks of a layer differ, and one of its methods can't be padded; the model is then unchanged.
    """
    padded: list[tuple[Method, int]] = []
    for path, layer in adapted_layers(model):
        groups: dict[str, list[Method]] = {}
        for name in adapters_of(layer):
            for parameter, method in methods_of(layer, name).items():
                groups.setdefault(parameter, []).append(method)
        for methods in groups.values():
            rank = max(method.rank for method in methods)
            lower = [method for method in methods if method.rank < rank and method.has_rank]
            if fixed := [method for method in lower if not method.can_pad]:
                raise InputError(f"'{path}' has a {type(fixed[0]).__name__}, whose rank can't be padded to {rank}")
            padded += [(method, rank) for method in lower]
    for method, rank in padded:
        method.pad(rank)
    return model
