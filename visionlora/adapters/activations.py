"""Activations that keep less for the backward, beside adapted layers.

An adapted layer keeps its input; where an activation made it, the activation keeps its own input as well.
One of the two is enough: either the layer runs the activation again (``ops.recompute``; where ``set_memory`` asks for
it), or the activation takes its gradient from its output (``ops.clamp``). The numbers stay the same to the last bit.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters.swap import is_swapped, swap, unswap
from visionlora.ops.clamp import clamp_
from visionlora.ops.kept import asked_to_keep
from visionlora.ops.recompute import leave_note

_RUN_AGAIN = {
    "torch.nn.modules.activation": {"GELU", "SiLU", "Hardswish", "Mish", "ELU", "Softplus", "ReLU6", "Hardtanh"},
    "timm.layers.activations": {"GELU", "GELUTanh", "QuickGELU", "Swish", "Mish", "HardSwish"},
}
"""Activations that need their input in the backward, and are cheap to run: module -> classes."""

_FROM_OUTPUT = {"torch.nn.modules.activation": {"ReLU"}}
"""Activations whose gradient follows from their output."""

_FROM_OUTPUT_IN_PLACE = {"torch.nn.modules.activation": {"ReLU6", "Hardtanh"}}
"""Those that do so in place, where torch's own keep a copy of the input."""


def keep_less(module: nn.Module) -> None:
    """Have a known activation keep less, in place; other modules are left as they are."""
    name, home = type(module).__name__, type(module).__module__
    if is_swapped(module, _run_again) or is_swapped(module, _from_output):
        return
    in_place = bool(vars(module).get("inplace"))
    if name == "ELU" and in_place:
        return  # It takes its gradient from its output already.
    if name in _FROM_OUTPUT.get(home, ()) or (in_place and name in _FROM_OUTPUT_IN_PLACE.get(home, ())):
        swap(module, _from_output)
    elif name in _RUN_AGAIN.get(home, ()):
        swap(module, _run_again, "inplace" in vars(module))


def keep_all(module: nn.Module) -> None:
    """The inverse of ``keep_less``."""
    if is_swapped(module, _run_again) or is_swapped(module, _from_output):
        unswap(module)


def _run_again(base: Any, may_be_inplace: bool) -> dict[str, Any]:
    def forward(self: nn.Module, input: Tensor) -> Tensor:
        output: Tensor = base.forward(self, input)
        if _in_training(input):
            leave_note(output, input, partial(base.forward, self))
            if kept := asked_to_keep(input):
                kept.as_it_is(input)
        return output

    if not may_be_inplace:
        return {"forward": forward}
    # In place it would overwrite the very input that is to be kept, of which it keeps a copy itself.
    return {"forward": forward, "inplace": property(lambda _self: False, _set_inplace)}


def _set_inplace(self: nn.Module, inplace: bool) -> None:
    vars(self)["inplace"] = inplace


def _from_output(base: Any) -> dict[str, Any]:
    def forward(self: Any, input: Tensor) -> Tensor:
        trains = _in_training(input) and (input.grad_fn is not None or not self.inplace)
        kept = asked_to_keep(input) if trains else None
        output: Tensor
        if trains and self.inplace and base.__name__ != "ReLU":
            output = clamp_(input, self.min_val, self.max_val)
        else:
            output = base.forward(self, input)  # Of torch's own, ReLU's gradient does follow from its output.
        if kept is not None:
            kept.but_for_zeros(output)
        return output

    return {"forward": forward}


def _in_training(input: Tensor) -> bool:
    # Tracers and functorch look into a forward, and know nothing of notes and of the clamp.
    if not isinstance(input, Tensor) or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return torch.is_grad_enabled() and input.requires_grad and not torch._C._are_functorch_transforms_active()
