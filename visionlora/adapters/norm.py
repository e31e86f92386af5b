"""Normalisation layers with running statistics (BatchNorm and its kin), which stay frozen by default."""

from typing import Any

from torch import nn

from visionlora.adapters.swap import is_swapped, swap, unswap

_KEY = "_visionlora_mode"


def has_running_stats(module: nn.Module) -> bool:
    """Whether a training forward would change the module's statistics."""
    return module._buffers.get("running_mean") is not None or module._buffers.get("running_var") is not None


def freeze(module: nn.Module) -> None:
    """Keep ``module`` in eval mode, whatever ``model.train()`` says."""
    if not is_frozen(module):
        vars(module)[_KEY] = module.training
        module.eval()
        swap(module, _members)


def unfreeze(module: nn.Module) -> None:
    """Let ``module`` follow ``model.train()`` again, in the mode that it would have without ``freeze``."""
    if is_frozen(module):
        unswap(module)
        module.train(vars(module).pop(_KEY))


def is_frozen(module: nn.Module) -> bool:
    """Whether ``freeze`` holds the module."""
    return is_swapped(module, _members)


def _members() -> dict[str, Any]:
    return {"train": _stay_in_eval}


def _stay_in_eval(self: nn.Module, mode: bool = True) -> nn.Module:
    vars(self)[_KEY] = mode
    for module in self.modules():
        module.training = False
    return self
