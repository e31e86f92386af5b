"""What a model answers to parts of a batch, put together in the order of the images."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from visionlora.errors import InputError


def in_order(parts: list[Any], places: list[list[int]], listed: bool) -> Any:
    """The answers to all images, from those to some of them each.

    Args:
        parts: answers: tensors with the images first, in tuples, lists or dicts; or lists of one entry for each image.
        places: of each part's images in the whole.
        listed: whether the parts are such lists.

    Returns:
        in the form of a part; where parts' tensors differ in shape, a list of one entry for each image.

    Raises:
        InputError: an answer has not one entry for each image.
    """
    whole = [at for some in places for at in some]
    if not listed and _are_alike(flat := [tree_flatten(part) for part in parts]):
        back = sorted(range(len(whole)), key=whole.__getitem__)
        columns = zip(*(leaves for leaves, _ in flat), strict=True)
        return tree_unflatten([_put(list(column), places, back) for column in columns], flat[0][1])
    answers: list[Any] = [None] * len(whole)
    for part, some in zip(parts, places, strict=True):
        for leaf in tree_leaves(part) if not listed else ():
            if leaf is not None:
                _check(leaf, len(some))
        for number, at in enumerate(some):
            answers[at] = part[number] if listed else tree_map(lambda leaf, number=number: _entry(leaf, number), part)
    return answers


def span_of(answer: Any, start: int, stop: int, total: int, classes: int | None, listed: bool) -> Any:
    """The images from ``start`` to ``stop`` of a batch's answer for ``total``.

    Of dimension 1 the first ``classes``, or all, if None. Raises as ``in_order`` does.
    """
    if listed:
        return answer[start:stop]

    def cut(leaf: Any) -> Any:
        if leaf is None:
            return None
        _check(leaf, total)
        return leaf[start:stop] if classes is None else leaf[start:stop, :classes]

    return tree_map(cut, answer)


def _are_alike(flat: list[tuple[list[Any], Any]]) -> bool:
    first, spec = flat[0]
    return all(
        other == spec
        and all(
            (one is None and mine is None) or (one is not None and mine is not None and one.shape[1:] == mine.shape[1:])
            for one, mine in zip(leaves, first, strict=True)
        )
        for leaves, other in flat
    )


def _put(column: list[Any], places: list[list[int]], back: list[int]) -> Any:
    if column[0] is None:
        return None
    for tensor, some in zip(column, places, strict=True):
        _check(tensor, len(some))
    joined = torch.cat(column) if len(column) > 1 else column[0]
    return joined if back == sorted(back) else joined[torch.tensor(back, device=joined.device)]


def _entry(leaf: Any, number: int) -> Any:
    return None if leaf is None else leaf[number]


def _check(tensor: Any, images: int) -> None:
    if not isinstance(tensor, Tensor) or not tensor.dim() or len(tensor) != images:
        raise InputError(
            "the model's answer has not one entry for each image, so that cameras' answers can't be told apart; "
            "call it through a module that answers tensors with the images first"
        )
