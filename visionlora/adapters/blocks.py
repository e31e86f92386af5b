"""The blocks of a model: parts that it runs one after the other, found by its structure."""

from collections.abc import Iterator, Set

from torch import nn

from visionlora.adapters.paths import join
from visionlora.adapters.swap import plain_class

MAY_BE_LEFT = 0.25
"""Share of a part's weights that may lie in none of its own parts when it is split: a stem's, or an embedding's."""
SMALL = 1 / 50
"""Share of all weights below which a part is not split."""

Block = tuple[str, nn.Module]


def blocks(model: nn.Module, weights: Set[nn.Parameter]) -> list[Block]:
    """Parts that have most of ``weights`` between them, none inside another, in the model's order and by name.

    What a model runs in turn stands in lists (``ModuleList``, ``Sequential``, ``ModuleDict``): a ViT's blocks, ResNet's
    bottlenecks, ConvNeXt's stages with blocks of their own. A part is split into its children where there is such a
    list in it and few weights are left outside the children that have parts themselves; the model always is. What it
    has beside its parts is in no block: an embedding, a single layer.
    """
    least = SMALL * _size(model, weights)
    return [block for child in _parts("", model, weights) for block in _split(*child, weights, least)]


def _split(path: str, part: nn.Module, weights: Set[nn.Parameter], least: float) -> list[Block]:
    inner, size = _parts(path, part, weights), _size(part, weights)
    inside = sum(_size(each, weights) for _, each in inner)
    if size < least or inside < (1 - MAY_BE_LEFT) * size or not _has_list(part, weights):
        return [(path, part)]
    return [block for child in inner for block in _split(*child, weights, least)]


def _parts(path: str, module: nn.Module, weights: Set[nn.Parameter]) -> list[Block]:
    """The children that are called, have parts themselves, and some of the weights."""
    found: list[Block] = []
    for name, child in module.named_children():
        if _is_called(child):
            found += [(join(path, name), child)] if _has_parts(child) and _size(child, weights) else []
        else:
            found += _parts(join(path, name), child, weights)
    return found


def _has_list(part: nn.Module, weights: Set[nn.Parameter]) -> bool:
    """Whether there is a list of parts in it, and not of single layers alone."""
    lists: Iterator[nn.Module] = (
        module for module in part.modules() if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    )
    return any(_parts("", module, weights) for module in lists)


def _has_parts(module: nn.Module) -> bool:
    # A layer whose class is swapped is one layer, whatever it holds.
    return bool(module._modules) and plain_class(module) is type(module)


def _is_called(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward


def _size(module: nn.Module, weights: Set[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter in weights)
