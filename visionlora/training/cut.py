"""The place in a model below which nothing trains, and a forward that begins there."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters import norm
from visionlora.adapters.adaptable import base_modules
from visionlora.errors import InputError


@dataclass(frozen=True)
class Cut:
    """Where a model is cut: nothing below trains, and nothing above sees more of what is below than one tensor.

    Attributes:
        path: the module whose input is that tensor.
        below: the modules that are done before it begins, with the shapes of what they give for ``IMAGES`` images.
        shape: of the model's input, (3, H, W).
    """

    path: str
    below: dict[str, "Given"]
    shape: tuple[int, ...]

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        """What the module at the cut is given for images (N, 3, H, W), without gradients: (N, ...)."""
        found: list[Tensor] = []

        def take(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append(inputs[0])
            raise _Reached

        handle = model.get_submodule(self.path).register_forward_pre_hook(take)
        try:
            with torch.no_grad(), suppress(_Reached):
                model(images)
        finally:
            handle.remove()
        return found[0]

    @contextmanager
    def shown(self, model: nn.Module, filler: float = 0.0) -> Iterator[None]:
        """Within the block the model takes features (N, ...) in the place of images; what is below is not computed."""
        given: list[Tensor] = []

        def begin(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            given[:] = [inputs[0]]
            images = inputs[0].new_full((len(inputs[0]), *self.shape), filler)
            return (images, *inputs[1:])

        def go_on(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (given[0], *inputs[1:])

        with ExitStack() as undone:
            for path, output in self.below.items():
                module = model.get_submodule(path)
                undone.callback(vars(module).pop, "forward")
                vars(module)["forward"] = output.filled(given, filler)
            for module, hook in ((model, begin), (model.get_submodule(self.path), go_on)):
                undone.callback(module.register_forward_pre_hook(hook).remove)
            yield


@dataclass(frozen=True)
class Given:
    """A tensor that a module gave: its shape for ``IMAGES`` images, and its precision."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def filled(self, batch: list[Tensor], filler: float) -> Any:
        """What gives a tensor of one value in its place, for as many images as ``batch`` then has."""

        def forward(*_given: Any, **_named: Any) -> Tensor:
            images = len(batch[0])
            first = self.shape[0] // IMAGES * images if self.shape[0] % IMAGES == 0 else self.shape[0]
            return torch.full((first, *self.shape[1:]), filler, dtype=self.dtype, device=batch[0].device)

        return forward


IMAGES = 2
"""That a model is looked at with."""


class _Reached(Exception):
    """What is above the cut is not asked for."""


@dataclass
class _Call:
    """When a module was at work, in ticks, and what with."""

    begin: int
    end: int = -1
    inputs: tuple[Any, ...] = ()
    output: Any = None


def find_cut(model: nn.Module, images: Tensor) -> Cut:
    """The deepest cut of a model that is exact, which is tried: on the features, with nonsense in the place of what is
    below, every module above gets and gives bit for bit what it does on the images. The output alone would not tell: a
    new head is zero.

    Args:
        model: in training mode, with all that will train.
        images: ``IMAGES`` of them, (2, 3, H, W), as they are trained on.

    Raises:
        InputError: BatchNorm measures, something is drawn at random below, or there is no such place.
    """
    if measuring := norm.measuring(model):
        raise InputError(f"train.cache_features: {type(measuring[0]).__name__} measures its statistics; freeze it")
    calls = _watched(model, images)
    first = min((_called(path, calls) for path in _owners(model)), key=lambda path: calls[path].begin)
    path = first
    while path:
        cut = _cut_at(path, calls, images)
        if cut is not None and _is_exact(cut, model, images, calls):
            return cut
        path = path.rpartition(".")[0]
        while path and path not in calls:
            path = path.rpartition(".")[0]
    raise InputError(
        f"train.cache_features: nothing can be kept, for '{first or 'the model'}' trains, and no later place sees one "
        "tensor alone; adapt later stages (lora.targets), or leave it out"
    )


def _owners(model: nn.Module) -> list[str]:
    """The modules that hold what trains; an adapter's tensors are its layer's."""
    names = [name.split(".") for name, parameter in model.named_parameters() if parameter.requires_grad]
    found = [".".join(parts[: parts.index("adapters")] if "adapters" in parts else parts[:-1]) for parts in names]
    return list(dict.fromkeys(found))


def _called(path: str, calls: dict[str, _Call]) -> str:
    """The module, or the one around it whose forward reads it."""
    while path not in calls:
        path = path.rpartition(".")[0]
    return path


def _watched(model: nn.Module, images: Tensor) -> dict[str, _Call]:
    calls: dict[str, _Call] = {}
    tick = 0

    def begin(path: str, inputs: tuple[Any, ...]) -> None:
        nonlocal tick
        tick += 1
        calls.setdefault(path, _Call(tick, inputs=inputs))

    def end(path: str, output: Any) -> None:
        nonlocal tick
        tick += 1
        calls[path].end, calls[path].output = tick, output

    with ExitStack() as undone, torch.no_grad():
        for path, module in base_modules(model):
            before = module.register_forward_pre_hook(lambda _m, inputs, path=path: begin(path, inputs))
            after = module.register_forward_hook(lambda _m, _inputs, output, path=path: end(path, output))
            undone.callback(before.remove)
            undone.callback(after.remove)
        with _seeded():
            model(images)
    return calls


def _cut_at(path: str, calls: dict[str, _Call], images: Tensor) -> Cut | None:
    call = calls[path]
    if not call.inputs or not isinstance(call.inputs[0], Tensor) or len(call.inputs[0]) != len(images):
        return None
    done = [one for one, each in calls.items() if one and 0 <= each.end < call.begin]
    outermost = [one for one in done if not any(one.startswith(f"{other}.") for other in done)]
    if not all(isinstance(calls[one].output, Tensor) and calls[one].output.dim() for one in outermost):
        return None
    below = {one: Given(tuple(calls[one].output.shape), calls[one].output.dtype) for one in outermost}
    return Cut(path, below, tuple(images.shape[1:])) if below else None


def _is_exact(cut: Cut, model: nn.Module, images: Tensor, expected: dict[str, _Call]) -> bool:
    """Whether the model is the same above the cut whatever stands below, and what is below the same each time."""
    with _seeded():
        features = cut.features(model, images)
    again = cut.features(model, images)
    if not torch.equal(features, again):
        raise InputError(
            "train.cache_features: what is kept would be drawn at random (model.drop_rate, drop_path_rate); set it to 0"
        )
    above = [path for path, call in expected.items() if call.begin > expected[cut.path].begin]
    for filler in (0.0, 7.0):
        with cut.shown(model, filler):
            found = _watched(model, features)
        if not _same(found[""].output, expected[""].output):
            return False
        for path in above:
            then, now = expected[path], found.get(path)
            if now is None or not _same((then.inputs, then.output), (now.inputs, now.output)):
                return False
    return True


def _same(then: Any, now: Any) -> bool:
    """Whether tensors, in tuples, lists and dicts, are equal bit for bit."""
    if isinstance(then, Tensor):
        return isinstance(now, Tensor) and torch.equal(then, now)
    if isinstance(then, dict):
        return isinstance(now, dict) and then.keys() == now.keys() and all(_same(then[key], now[key]) for key in then)
    if isinstance(then, tuple | list):
        return len(then) == len(now) and all(map(_same, then, now))
    return True


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
