"""A mixed batch on its way through a model: every image meets its own camera's adapter."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from visionlora.adapters import state
from visionlora.adapters.fleet.crew import Crew, Unforeseen
from visionlora.adapters.fleet.layers import Group, mixed_batchnorm, mixed_layer
from visionlora.adapters.fleet.plan import Plan
from visionlora.adapters.fleet.watching import PROBE, Call, shape_of
from visionlora.adapters.forward import is_known, is_known_conv
from visionlora.adapters.layer import is_adapted
from visionlora.adapters.norm import is_known_batchnorm
from visionlora.adapters.swap import plain_class


@dataclass
class Batch:
    """A mixed batch under way.

    Attributes:
        groups: cameras with their images, which lie side by side, in order.
        filler: what stands for the classes that a camera lacks and another has.
        alone: whether one camera's images are under way in a part of the model.
    """

    groups: list[Group]
    filler: float = 0.0
    alone: bool = False

    @property
    def size(self) -> int:
        """Images."""
        return self.groups[-1][2]


@contextmanager
def mixed(plan: Plan, crew: Crew, batch: Batch) -> Iterator[None]:
    """Within the block the model that the plan is for takes this batch. Afterwards no camera is shown."""
    before = {module: vars(module).get("forward") for module in (*plan.regions, *plan.unread)}
    try:
        for module, owners in plan.regions.items():
            vars(module)["forward"] = _forward(module, owners, plan.calls[module], crew, batch)
        for module in plan.unread:
            vars(module)["forward"] = _unforeseen
        crew.hide()
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward


def _forward(
    module: nn.Module, owners: list[nn.Module], calls: list[Call], crew: Crew, batch: Batch
) -> Callable[..., Any]:
    plain: Callable[..., Any] = module.forward
    apart = _apart(module, plain, owners, calls, crew, batch)
    quick = _quick(module, owners)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if batch.alone:
            return plain(*args, **kwargs)
        if quick is not None and len(args) == 1 and not kwargs:
            _check_rows(args[0], calls, batch)
            answer = quick(module, args[0], batch.groups)
            if answer is not None:
                return answer
        return apart(*args, **kwargs)

    return forward


def _quick(module: nn.Module, owners: list[nn.Module]) -> Callable[..., Tensor | None] | None:
    """A way to compute a layer for all cameras at once, if there is one; it may decline an input with None."""
    if owners != [module]:
        return None
    base = plain_class(module)
    if is_adapted(module) and state.owned_of(module) is None and is_known(base):
        return mixed_layer
    return mixed_batchnorm if not is_adapted(module) and is_known_batchnorm(base) else None


def _apart(
    module: nn.Module,
    plain: Callable[..., Any],
    owners: Sequence[nn.Module],
    calls: list[Call],
    crew: Crew,
    batch: Batch,
) -> Callable[..., Any]:
    """The module camera by camera."""
    base = plain_class(module)
    # Heads with a class for each output, which may be as many as a camera has.
    of_classes = None if not is_known(base) else 1 if is_known_conv(base) else -1

    def apart(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        call = _as_seen(calls, leaves, spec, batch)
        found = []
        batch.alone = True
        try:
            for number, (camera, _, _) in enumerate(batch.groups):
                crew.show(camera, owners)
                part = [
                    _rows_of(leaf, batch, number) if kind == "rows" else leaf
                    for leaf, kind in zip(leaves, call.takes, strict=True)
                ]
                part_args, part_kwargs = tree_unflatten(part, spec)
                found.append(plain(*part_args, **part_kwargs))
        finally:
            batch.alone = False
            crew.hide(owners)
        return _joined(found, of_classes, batch.filler)

    return apart


def _rows_of(leaf: Tensor, batch: Batch, number: int) -> Tensor:
    each = len(leaf) // batch.size
    _, start, stop = batch.groups[number]
    return leaf[start * each : stop * each]


def _joined(parts: list[Any], of_classes: int | None, filler: float) -> Any:
    """What cameras' parts of a batch gave, as the batch would have."""
    flat = [tree_flatten(part) for part in parts]
    spec = flat[0][1]
    if any(other != spec for _, other in flat):
        raise Unforeseen("a module answers cameras in different forms")
    leaves = [_cat(list(column), of_classes, filler) for column in zip(*(leaves for leaves, _ in flat), strict=True)]
    return tree_unflatten(leaves, spec)


def _cat(column: list[Any], of_classes: int | None, filler: float) -> Any:
    if column[0] is None:
        return None
    if len({tensor.shape[1:] for tensor in column}) == 1:
        return torch.cat(column)
    if of_classes is None:
        raise Unforeseen("a module answers cameras in different shapes")
    most = max(tensor.shape[of_classes] for tensor in column)
    behind = 2 * (column[0].dim() - 1 - of_classes % column[0].dim())
    return torch.cat(
        [F.pad(tensor, [0] * behind + [0, most - tensor.shape[of_classes]], value=filler) for tensor in column]
    )


def _as_seen(calls: list[Call], leaves: list[Any], spec: TreeSpec, batch: Batch) -> Call:
    """The call among those seen that these arguments are like."""
    for call in calls:
        if call.spec == spec and all(
            _is_like(leaf, shape, kind, batch)
            for leaf, shape, kind in zip(leaves, call.shapes, call.takes, strict=True)
        ):
            return call
    raise Unforeseen(f"a {type(calls[0].module).__name__} was called with other arguments than on the images before")


def _check_rows(x: Any, calls: list[Call], batch: Batch) -> None:
    if not any(_is_like(x, call.shapes[0], "rows", batch) for call in calls if len(call.shapes) == 1):
        raise Unforeseen(f"a {type(calls[0].module).__name__} was called on other rows than of the images before")


def _is_like(leaf: Any, seen: tuple[int, ...] | None, kind: str, batch: Batch) -> bool:
    shape = shape_of(leaf)
    if seen is None or shape is None:
        return seen is shape
    if kind == "shared":
        return seen == shape
    return len(seen) == len(shape) and seen[0] * batch.size == shape[0] * PROBE


def _unforeseen(*_args: Any, **_kwargs: Any) -> Any:
    raise Unforeseen("a module with tensors of cameras was called that was not called on the images before")
