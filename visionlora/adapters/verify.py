"""Whether each adapter reaches the model's output, and how strongly."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters.adaptable import ADAPTABLE
from visionlora.adapters.effects import NO_EFFECT, NO_UPDATE, NOT_RUN, Effect, Verification
from visionlora.adapters.example import arguments, call, eagerly, random_state_kept, tensors_in
from visionlora.adapters.folding import unfold_batchnorm
from visionlora.adapters.layer import adapted_layers, adapted_parameters, adapters_of
from visionlora.adapters.methods.base import Method
from visionlora.adapters.model import disabled, set_route
from visionlora.adapters.paths import unwrapped
from visionlora.adapters.swap import swap, unswap
from visionlora.errors import InputError

STEP = 0.01
"""By how much each number in the factors is imagined to move; trained ones are of this size."""

_READS = "_visionlora_reads"


def verify(model: nn.Module, example: Any) -> Verification:
    """Show each active adapter's effect on the output, and name those that have none.

    Three forwards and one backward in eval mode, on a copy, so that the model itself and the random state stay
    as they are. The gradient of a random projection of the output is exactly zero, or absent, for factors that
    do not reach the output. That holds for a new adapter too, whose update is still zero. Its norm is the
    Jacobian's: for independent normal r, E|d(r . y)/dp|^2 = |dy/dp|^2 (Frobenius), so it also says how far
    the output moves when the factors do.

    A layer that is cut off from the graph (``detach``, ``no_grad``, ``argmax``) counts as one without effect, for
    its adapter can't train either; so does one whose gradient underflows, as happens in deep models with random
    weights. Detectors (a list of images in, a list of dicts out) return few boxes or none,
    and their proposals pass without gradient; so there each tensor that leaves a last layer, which is the logits
    and offsets of the heads, counts as output as well. What only runs on detections (mask and keypoint heads)
    needs an example in which something is detected.

    Args:
        model: with an active adapter.
        example: what the model is called with, on its device: a tensor (N, C, H, W), a detector's list of images, a
            tuple of positional arguments, or a dict of keyword arguments. The model may return tensors, and tuples,
            lists, dicts and dataclasses of them.

    Returns:
        the effects; ``print`` shows a table, ``without_effect`` has the names.

    Raises:
        InputError: no adapter is active, or the output holds no floating-point tensor or is not finite.
    """
    with eagerly(model):
        return _verify(unwrapped(model), example)


def _verify(model: nn.Module, example: Any) -> Verification:
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    unfold_batchnorm(twin)
    # A fused forward doesn't read the weight.
    set_route(twin, "reference")
    layers = dict(adapted_layers(twin))
    methods = {
        (adapter, path, parameter): method
        for path, layer in layers.items()
        for adapter in adapters_of(layer).active
        for parameter, method in adapters_of(layer)[adapter].items()  # type: ignore[operator]
    }
    if not methods:
        raise InputError("no adapter is active on this model; attach, load or activate one first")
    for method in methods.values():
        method.requires_grad_()
    for layer in layers.values():
        _watch_reads(layer)
    with random_state_kept(twin), torch.enable_grad():
        outputs, detects = _forward(twin, example)
        responses = _responses(outputs, list(methods.values()))
    for layer in layers.values():
        unswap(layer)
    change = None if detects else _change(twin, example)
    updates = [_update(layers[path], parameter, method) for (_, path, parameter), method in methods.items()]
    trained = {adapter for (adapter, *_), update in zip(methods, updates, strict=True) if update}
    effects = []
    for (key, method), update, response in zip(methods.items(), updates, responses, strict=True):
        adapter, path, parameter = key
        remark = ""
        if not response:
            remark = NO_EFFECT if parameter in vars(layers[path])[_READS] else NOT_RUN
        elif adapter in trained and not update:
            remark = NO_UPDATE
        effects.append(Effect(adapter, _layer_name(path, parameter, method.parts), update, response, remark))
    return Verification(effects, change)


def _watch_reads(layer: nn.Module) -> None:
    """Have the layer note which of its adapted parameters are read, by its own forward or by anyone's."""
    vars(layer)[_READS] = set()
    swap(layer, _members, adapted_parameters(layer))


def _members(base: type, parameters: tuple[str, ...]) -> dict[str, Any]:
    return {parameter: _noted(parameter, vars(base)[parameter]) for parameter in parameters}


def _noted(parameter: str, answer: property) -> property:
    def get(self: nn.Module) -> Any:
        vars(self)[_READS].add(parameter)
        return answer.__get__(self)

    return property(get)


def _forward(model: nn.Module, example: Any) -> tuple[list[Tensor], bool]:
    """The tensors that the model returns, for a detector those that leave its last layers too; whether it is one."""
    left: list[tuple[Tensor, Any]] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        # A head without boxes to run on has nothing to show, and must not hide the layer before it.
        left.extend((tensor, tensor.grad_fn) for tensor in _tensors(output) if tensor.numel() and tensor.requires_grad)

    args, kwargs = arguments(example)
    takes_list = any(isinstance(argument, list | tuple) for argument in (*args, *kwargs.values()))
    hooks = [m.register_forward_hook(note) for m in model.modules() if takes_list and isinstance(m, ADAPTABLE)]
    output = model(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    outputs = list(_tensors(output))
    if not all(torch.isfinite(tensor).all() for tensor in outputs):
        raise InputError("the model's output on the example is not finite; check the example and the weights")
    if isinstance(output, list | tuple) and all(isinstance(entry, dict) for entry in output):
        return [*outputs, *_last(left)], True
    if not outputs:
        raise InputError(f"the model returns {type(output).__name__} without a floating-point tensor")
    return outputs, False


def _last(left: list[tuple[Tensor, Any]]) -> list[Tensor]:
    """Of the layers' outputs, each with the graph's node that made it, those that no other layer's stems from."""
    before = set()
    waiting = [node for _, node in left]
    while waiting:
        for earlier, _ in waiting.pop().next_functions:
            if earlier is not None and earlier not in before:
                before.add(earlier)
                waiting.append(earlier)
    return [tensor for tensor, node in left if node not in before]


def _responses(outputs: list[Tensor], methods: list[Method]) -> list[float]:
    """For each method, the norm of its factors' gradient of a random projection of the outputs, times ``STEP``."""
    generator = torch.Generator().manual_seed(0)
    projections = []
    for output in outputs:
        direction = torch.randn(output.shape, generator=generator).to(output.device)
        size = torch.linalg.vector_norm(output.detach().float())
        projections.append((direction * output.float()).sum() / (size if size > 0 else 1))
    projection = torch.stack([value.cpu() for value in projections]).sum()
    if not projection.requires_grad:
        return [0.0] * len(methods)
    factors = [list(method.parameters()) for method in methods]
    flat = torch.autograd.grad(projection, [factor for group in factors for factor in group], materialize_grads=True)
    gradients = iter(flat)
    return [STEP * _norm([next(gradients) for _ in group]) for group in factors]


def _change(model: nn.Module, example: Any) -> float:
    # Both without a graph, for torch picks kernels by it, and a new adapter changes nothing at all.
    with torch.no_grad():
        with random_state_kept(model):
            outputs = list(_tensors(call(model, example)))
        with random_state_kept(model), disabled(model):
            base = list(_tensors(call(model, example)))
    size, difference = _norm(base), _norm([now - before for now, before in zip(outputs, base, strict=True)])
    return difference / size if size else difference


def _update(layer: nn.Module, parameter: str, method: Method) -> float:
    frozen = layer._parameters[parameter]
    assert frozen is not None
    with torch.no_grad():
        size, difference = _norm([frozen]), _norm([method(frozen) - frozen])
    return difference / size if size else difference


def _norm(tensors: Iterable[Tensor]) -> float:
    return sum(float(torch.linalg.vector_norm(tensor.detach().float())) ** 2 for tensor in tensors) ** 0.5


def _tensors(value: Any) -> Iterator[Tensor]:
    return (tensor for tensor in tensors_in(value) if tensor.is_floating_point())


def _layer_name(path: str, parameter: str, parts: str) -> str:
    name = path if parameter == "weight" else f"{path}.{parameter}"
    return f"{name}:{parts}" if parts else name
