"""Fold frozen BatchNorm into the convolutions before it while training: same numbers, fewer tensors.

A frozen BatchNorm is ``scale * x + shift`` per channel, so it can be a part of the convolution whose output
it takes. The canonical weights stay as they are, and so do all parameter names: the convolution computes
with scaled rows, and the BatchNorm passes its input on (to its activation, if it has one).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from visionlora.adapters import norm
from visionlora.adapters.example import Arguments, arguments, call, eagerly, modules_kept, random_state_kept, tensors_in
from visionlora.adapters.folded import fold_into, folded_into, scale_and_shift, unfold
from visionlora.adapters.forward import fused_forward, is_known_conv
from visionlora.adapters.layer import is_adapted
from visionlora.adapters.paths import named_modules, unwrapped
from visionlora.adapters.swap import base_of, is_swapped, swap, unswap

Pair = tuple[nn.Module, nn.Module]
"""A convolution, and the BatchNorm that takes its output."""

TOLERANCE = 1e-4
"""Largest difference between BatchNorm and its folded form, relative to the output's norm."""


def fold_batchnorm(model: nn.Module, example: Any) -> list[str]:
    """Fold every frozen BatchNorm that takes just what one convolution gives, in place.

    The pairs are found by running the model without gradients, in eval mode and in training mode, for a
    convolution's output may be read by something else in one of them (an auxiliary head). What refuses to run in
    training mode on the example, as a detector does without targets, is run part by part, each on the inputs that
    it had in eval mode; pairs in a part that can't be run so are left. Outputs agree with the unfolded model's up to
    rounding. What changes the adapters (attach, activate, merge ...) unfolds first.

    Args:
        model: with adapters or without; only BatchNorm that is frozen is folded.
        example: what the model is called with, small: a tensor (N, C, H, W), a detector's list of images, a tuple
            of positional arguments (``(images, targets)``), or a dict of keyword arguments.

    Returns:
        names of the BatchNorm layers that are folded now.
    """
    model = unwrapped(model)
    unfold_batchnorm(model)
    with eagerly(model):
        return _fold(model, example)


def _fold(model: nn.Module, example: Any) -> list[str]:
    names = {module: path for path, module in named_modules(model)}
    watch = _Watch(model)
    with _eval_mode(model), watch, torch.no_grad():
        watch.leaves(call(model, example))
        watch.leaves_attributes()
    pairs = watch.pairs()
    if pairs:
        with modules_kept(model), random_state_kept(model), torch.no_grad():
            confirmed = _confirmed_in_training(model, pairs, example)
        pairs = [pair for pair in pairs if pair in confirmed]
    refold(pairs)
    return [names[batchnorm] for _, batchnorm in pairs]


def unfold_batchnorm(model: nn.Module) -> list[Pair]:
    """The inverse of ``fold_batchnorm``, in place; without folded layers nothing changes.

    Returns:
        the convolutions with their BatchNorm, for ``refold``.
    """
    pairs = [(layer, folded_into(layer)) for layer in model.modules() if folded_into(layer) is not None]
    for layer, batchnorm in pairs:
        unfold(layer)
        norm.stop_passing(batchnorm)
        if is_swapped(layer, _members):
            unswap(layer)
    return pairs


def refold(pairs: list[Pair]) -> None:
    """Fold pairs that are known to belong together."""
    for layer, batchnorm in pairs:
        if not is_adapted(layer) and not is_swapped(layer, _members):
            swap(layer, _members)
        fold_into(layer, batchnorm)
        norm.pass_through(batchnorm)


def _members(base: type) -> dict[str, Any]:
    """For a convolution without adapters."""
    return {"forward": fused_forward(base, lambda _layer, _x: None)}


def _confirmed_in_training(model: nn.Module, pairs: list[Pair], example: Any) -> set[Pair]:
    """The pairs of which each part of the model, as large as can be run in training mode, says that they are pairs."""
    inputs: dict[nn.Module, Arguments] = {model: arguments(example)}
    confirmed: set[Pair] = set()
    waiting = [model]
    model.train()
    while waiting:
        part = waiting.pop()
        modules = set(part.modules())
        inside = [pair for pair in pairs if modules.issuperset(pair)]
        if not inside:
            continue
        watch = _Watch(part)
        try:
            args, kwargs = inputs[part]
            with watch:
                watch.leaves(part(*args, **kwargs))
            watch.leaves_attributes()
        except Exception:  # Of any kind: the part wants targets, say, or is none that is called by itself.
            if part is model:
                inputs |= _inputs_in_eval(model, example)
            waiting += part.children()
            continue
        confirmed |= {pair for pair in inside if watch.never_met(pair) or pair in watch.pairs()}
    return confirmed


def _inputs_in_eval(model: nn.Module, example: Any) -> dict[nn.Module, Arguments]:
    """What each module that has parts is called with first."""
    inputs: dict[nn.Module, Arguments] = {}

    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs.setdefault(module, (args, kwargs))

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in model.modules() if module._modules]
    with _eval_mode(model):
        call(model, example)
    for hook in hooks:
        hook.remove()
    return inputs


class _Watch(TorchFunctionMode):
    """Sees which convolution's output enters which BatchNorm, and whether anything else reads it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._made_by: dict[int, nn.Module] = {}
        # An id means nothing once its tensor is gone.
        self._alive: list[Tensor] = []
        self._calls: Counter[nn.Module] = Counter()
        self._met: Counter[tuple[nn.Module, nn.Module]] = Counter()
        self._spoiled: set[nn.Module] = set()
        self._running: nn.Module | None = None
        self._model = model
        self._hooks: list[Any] = []

    def __enter__(self) -> "_Watch":
        for module in self._model.modules():
            if _is_frozen_conv(module):
                self._hooks.append(module.register_forward_hook(self._conv_ran))
            elif norm.is_foldable(module) and not module._forward_pre_hooks:
                self._hooks.append(module.register_forward_pre_hook(self._norm_starts))
                self._hooks.append(module.register_forward_hook(self._norm_ran))
            elif not module._modules and not isinstance(module, nn.Identity):
                self._hooks.append(module.register_forward_pre_hook(self._other_starts))
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for hook in self._hooks:
            hook.remove()

    def pairs(self) -> list[Pair]:
        """Convolution and BatchNorm that belong to each other in every call."""
        readers = Counter(layer for layer, _ in self._met)
        return [
            (layer, batchnorm)
            for (layer, batchnorm), times in self._met.items()
            if times == self._calls[layer] == self._calls[batchnorm]
            and readers[layer] == 1
            and not {layer, batchnorm} & self._spoiled
        ]

    def never_met(self, pair: Pair) -> bool:
        """Whether neither of the two ran."""
        return not any(self._calls[module] for module in pair)

    def leaves(self, value: Any) -> None:
        """Take note of what reads ``value``: nobody knows, so no convolution whose output is in it can be folded."""
        for tensor in tensors_in(value):
            if id(tensor) in self._made_by:
                self._spoiled.add(self._made_by[id(tensor)])

    def leaves_attributes(self) -> None:
        """Likewise for what the modules keep as attributes, for a loss to read."""
        for module in self._model.modules():
            self.leaves([value for value in vars(module).values() if isinstance(value, Tensor | list | tuple | dict)])

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        # None, for that is what an assignment to a part of the tensor answers.
        if self._running is None and isinstance(result, Tensor | list | tuple | None):
            self.leaves((args, kwargs))
        return result

    def _conv_ran(self, layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._calls[layer] += 1
        self._made_by[id(output)] = layer
        self._alive.append(output)

    def _other_starts(self, _module: nn.Module, inputs: Any) -> None:
        # What passes its input on in eval mode need not do so in training (DropPath).
        self.leaves(inputs)

    def _norm_starts(self, batchnorm: nn.Module, _inputs: Any) -> None:
        self._running = batchnorm

    def _norm_ran(self, batchnorm: nn.Module, inputs: Any, output: Tensor) -> None:
        self._calls[batchnorm] += 1
        layer = self._made_by.get(id(inputs[0]))
        if layer is not None:
            self._met[layer, batchnorm] += 1
            if not _agrees(batchnorm, inputs[0], output):
                self._spoiled.add(batchnorm)
        self._running = None


def _agrees(batchnorm: nn.Module, x: Tensor, output: Tensor) -> bool:
    scale, shift = scale_and_shift(batchnorm)
    shape = [-1, *[1] * (x.dim() - 2)]
    folded = norm.after_normalisation(batchnorm, scale.view(shape) * x + shift.view(shape))
    difference = torch.linalg.vector_norm((folded - output).double())
    return bool(difference <= TOLERANCE * torch.linalg.vector_norm(output.double()))


def _is_frozen_conv(layer: nn.Module) -> bool:
    base = base_of(layer) if is_adapted(layer) else type(layer)
    # A hook sees, and may change, what the convolution gives; the old weight_norm leaves no parameter ``weight``.
    if not is_known_conv(base) or layer._forward_hooks or "weight" not in layer._parameters:
        return False
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    assert weight is not None
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        return False
    return weight.dtype in (torch.float32, torch.float64)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    # Not by eval(): frozen BatchNorm would take that as the mode to go back to when it is detached.
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
