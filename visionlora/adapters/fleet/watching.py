"""What modules do with the images of a batch, seen in one forward: which rows are which image's, and who reads what.

Three images go in, and the one in the middle is all NaN. Nothing that is computed from it stays clean, and nothing
else becomes NaN; so a tensor holds the images' rows one image after the other, where its NaN are in the middle third
of its rows alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves

from visionlora.adapters.example import modules_kept, random_state_kept

PROBE = 3
"""Images of the batch that is looked at."""

Kind = Literal["rows", "shared", "other"]
"""Of a value that a module takes or gives: rows of the images in turn; no image has a part in it; none of the two."""

_PLAIN = (type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.memory_format)
_FACTS = {
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_cuda", "is_cpu", "is_meta")
}
"""Readers of what is no value of a tensor."""


@dataclass
class Call:
    """One call of a module.

    Attributes:
        module: that was called.
        spec: how its arguments are nested.
        takes: kinds of the values in them, flattened.
        shapes: of those that are tensors, None for others.
        gives: kinds of what it returned, None left out; empty if it did not return.
    """

    module: nn.Module
    spec: TreeSpec
    takes: list[Kind]
    shapes: list[tuple[int, ...] | None]
    gives: list[Kind] = field(default_factory=list)

    def splits(self) -> bool:
        """Whether the call's images could be computed apart."""
        return "other" not in self.takes and "rows" in self.takes and bool(self.gives) and set(self.gives) == {"rows"}


@dataclass
class Seen:
    """What was seen.

    Attributes:
        calls: module -> its calls.
        touched: module with tensors of its own in question -> the calls that were under way when one was read, from
            the model's down, for each reading.
    """

    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    touched: dict[nn.Module, list[tuple[Call, ...]]] = field(default_factory=dict)


@torch.no_grad()
def watch(model: nn.Module, images: Any, tensors: Mapping[nn.Module, Sequence[Tensor]]) -> Seen:
    """Run the model once on images of these shapes, and see.

    Args:
        model: in eval mode; as it was before, afterwards.
        images: (N, ...), or a list of images; only their shapes count.
        tensors: module -> those of its tensors whose readers are wanted.
    """
    seen, under_way = Seen(), list[Call]()
    owners = {id(tensor): module for module, own in tensors.items() for tensor in own}
    with (
        random_state_kept(model),
        modules_kept(model),
        _watched(model, seen, under_way),
        _Readers(owners, seen, under_way),
    ):
        model(probe_of(images))
    return seen


def probe_of(images: Any) -> Any:
    """Three images of these shapes, noise but for the second, which is NaN."""
    if isinstance(images, Tensor):
        found = torch.rand(PROBE, *images.shape[1:], dtype=images.dtype, device=images.device)
        found[1] = torch.nan
        return found
    first, last = images[0], images[-1]
    return [torch.rand_like(first), torch.full_like(last, torch.nan), torch.rand_like(first)]


@contextmanager
def _watched(model: nn.Module, seen: Seen, under_way: list[Call]) -> Iterator[None]:
    # Not by hooks, some of which get no keyword arguments. ``modules_kept`` takes it off.
    for module in list(model.modules()):
        vars(module)["forward"] = _watching(module, module.forward, seen, under_way)
    yield


def _watching(module: nn.Module, forward: Any, seen: Seen, under_way: list[Call]) -> Any:
    def watching(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        takes = [kind_of(leaf) for leaf in leaves]
        if _has_list_of_images((args, kwargs)):
            takes.append("other")
        call = Call(module, spec, takes, [shape_of(leaf) for leaf in leaves])
        seen.calls.setdefault(module, []).append(call)
        under_way.append(call)
        try:
            output = forward(*args, **kwargs)
        finally:
            under_way.pop()
        call.gives = [kind_of(leaf) for leaf in tree_leaves(output) if leaf is not None]
        return output

    return watching


class _Readers(TorchFunctionMode):
    """Sees every function of torch that is given one of the tensors."""

    def __init__(self, owners: Mapping[int, nn.Module], seen: Seen, under_way: list[Call]) -> None:
        super().__init__()
        self._owners, self._seen, self._under_way = owners, seen, under_way

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func in _FACTS:
            return func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs)):
            if (owner := self._owners.get(id(leaf))) is not None:
                stack = tuple(self._under_way)
                if stack and stack not in (stacks := self._seen.touched.setdefault(owner, [])):
                    stacks.append(stack)
        return func(*args, **(kwargs or {}))


def kind_of(value: Any) -> Kind:
    """The kind of a value in the forward of ``probe_of``."""
    if not isinstance(value, Tensor):
        return "shared" if isinstance(value, _PLAIN) else "other"
    in_turn = value.dim() > 0 and len(value) % PROBE == 0
    if not value.is_floating_point():
        return "other" if in_turn else "shared"  # what can't be NaN doesn't tell
    bad = value.isnan()
    if not bad.any():
        return "shared"
    if not in_turn:
        return "other"
    first, _, last = bad.reshape(PROBE, -1)
    return "other" if first.any() or last.any() else "rows"


def _has_list_of_images(value: Any) -> bool:
    """Whether there is a list in it that could have an entry for each image."""
    if isinstance(value, Mapping):
        return any(_has_list_of_images(entry) for entry in value.values())
    if isinstance(value, list | tuple):
        return (isinstance(value, list) and len(value) == PROBE) or any(map(_has_list_of_images, value))
    return False


def shape_of(value: Any) -> tuple[int, ...] | None:
    """A tensor's shape; None for anything else."""
    return tuple(value.shape) if isinstance(value, Tensor) else None
