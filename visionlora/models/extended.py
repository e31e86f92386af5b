"""A model beside others that grew out of it: its own outputs, bit for bit, and theirs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Join = Callable[[Any, dict[str, Any]], Any]
"""The base's outputs and, by name, the others' -> all of them together."""


class Extended(nn.Module):
    """A base and models that were adapted from it, which see each input together.

    The base's part of the outputs is what it computes alone, bit for bit. What lies below the first layer that an
    adapted model has of its own is computed once: as the base and the other do the same up to there, the outputs of
    modules that both have alike are taken over. Such modules are shared, so that their weights are there once.

    It is for inference: it stays in eval mode, and dropout would differ between its parts.

    Args:
        base: in eval mode; it stays as it is.
        others: by name, models of the same architecture but for their heads; modules that are alike are replaced.
        join: what is made of the outputs.

    Attributes:
        base, others, join: as given.
    """

    def __init__(self, base: nn.Module, others: Mapping[str, nn.Module], join: Join) -> None:
        super().__init__()
        self.base, self.join = base, join
        self.others = nn.ModuleDict(others)
        self._taken = {name: _Taken(base, other) for name, other in self.others.items()}
        self.eval()

    def train(self, mode: bool = True) -> "Extended":
        """Stay in eval mode."""
        del mode
        return super().train(False)

    def forward(self, images: Any) -> Any:
        """What ``join`` makes of all outputs for what the base takes."""
        with ExitStack() as recordings:
            outputs = {
                name: recordings.enter_context(_recorded(self.base, taken.wanted))
                for name, taken in self._taken.items()
            }
            base = self.base(images)
        found = {}
        for name, other in self.others.items():
            with self._taken[name].replayed(other, outputs[name]):
                found[name] = other(images)
        return self.join(base, found)

    def without(self, name: str) -> "Extended":
        """The same without one of the others.

        Raises:
            KeyError: there is none of this name.
        """
        others: dict[str, nn.Module] = dict(self.others.items())
        del others[name]
        return Extended(self.base, others, self.join)

    def shared(self, name: str) -> list[str]:
        """The modules of which ``name`` takes over outputs, in the order in which they run; known after a forward."""
        return list(self._taken[name].used)


@dataclass
class _Output:
    """What a module answered, and how often that had been changed in place then."""

    value: Any
    version: int | None

    @classmethod
    def of(cls, value: Any) -> "_Output":
        return cls(value, _version(value))

    @property
    def untouched(self) -> bool:
        return self.version is not None and self.version == _version(self.value)


def _version(value: Any) -> int | None:
    """Of a tensor, or of all of a container's together; None where nobody counts."""
    if isinstance(value, Tensor):
        return None if value.is_inference() else value._version
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    versions = [_version(part) for part in parts]
    return None if not versions or None in versions else sum(version for version in versions if version is not None)


class _Taken:
    """The modules that a base and a model adapted from it have alike, the outermost ones, and share from here on.

    Attributes:
        paths: of these.
        own: of modules that have something of the model's own, not counting what is in them.
        used: the paths whose outputs were taken over last.
        wanted: those whose outputs are worth keeping: at first all that are alike, as a model may call what is in a
            module and never the module; then what was used. Whatever else is kept until the end takes memory that the
            model would have used again.
    """

    def __init__(self, base: nn.Module, other: nn.Module) -> None:
        theirs = dict(base.named_modules())
        self.paths: list[str] = []
        self.own: list[str] = []
        self.used: list[str] = []
        for path, module in list(other.named_modules()):
            if any(path.startswith(f"{outer}.") for outer in self.paths):
                continue
            if path not in theirs or not _alike_alone(theirs[path], module):
                self.own.append(path)
            elif path and _alike(theirs[path], module):
                parent, _, leaf = path.rpartition(".")
                other.get_submodule(parent)._modules[leaf] = theirs[path]
                self.paths.append(path)
        seen: set[nn.Module] = set()  # two of them may have a module in common
        shared = [other.get_submodule(path).named_modules(seen, path) for path in self.paths]
        self.wanted = [path for modules in shared for path, _ in modules]

    @contextmanager
    def replayed(self, other: nn.Module, outputs: dict[str, list[_Output]]) -> Iterator[None]:
        """Within the block modules answer what they answered before, up to the first that the model has of its own.

        What was changed in place since is computed again.
        """
        waiting = {path: iter(outputs[path]) for path in self.wanted}
        same = True
        used: list[str] = []

        def begins(_module: nn.Module, _inputs: Any) -> None:
            nonlocal same
            same = False

        def replaying(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
            def answer(*args: Any, **kwargs: Any) -> Any:
                found = next(waiting[path], None)
                if not same or found is None or not found.untouched:
                    return forward(*args, **kwargs)
                used.append(path)
                return found.value

            return answer

        handles = [other.get_submodule(path).register_forward_pre_hook(begins) for path in self.own]
        modules = {path: other.get_submodule(path) for path in self.wanted}
        for path, module in modules.items():
            module.forward = replaying(path, module.forward)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module in modules.values():
                del module.forward  # the instance's; the class's is there again
        self.used, self.wanted = used, list(dict.fromkeys(used))


@contextmanager
def _recorded(model: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, list[_Output]]]:
    """Within the block the outputs of these modules are kept, in the order of their calls; not while an outer one of
    them is at work, whose output has it all.
    """
    outputs: dict[str, list[_Output]] = {path: [] for path in paths}
    at_work: list[nn.Module] = []
    handles = []
    for path in paths:

        def begins(module: nn.Module, _inputs: Any) -> None:
            at_work.append(module)

        def keep(_module: nn.Module, _inputs: Any, output: Any, path: str = path) -> None:
            at_work.pop()
            if not at_work:
                outputs[path].append(_Output.of(output))

        module = model.get_submodule(path)
        handles += [module.register_forward_pre_hook(begins), module.register_forward_hook(keep)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules compute the same: classes, settings and tensors, with all that is in them."""
    if not _alike_alone(one, other):
        return False
    children = zip(one._modules.values(), other._modules.values(), strict=True)
    return all((a is None and b is None) or (a is not None and b is not None and _alike(a, b)) for a, b in children)


def _alike_alone(one: nn.Module, other: nn.Module) -> bool:
    """The same without what is in them."""
    if type(one) is not type(other) or one._modules.keys() != other._modules.keys():
        return False
    if not one._modules and one.extra_repr() != other.extra_repr():  # a container may show what its modules are
        return False
    own, theirs = ({**module._parameters, **module._buffers} for module in (one, other))
    return own.keys() == theirs.keys() and all(map(_equal, own.values(), theirs.values()))


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
