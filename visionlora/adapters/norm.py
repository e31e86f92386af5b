"""Normalisation layers with running statistics (BatchNorm and its kin), which stay frozen by default."""

from typing import Any

from torch import Tensor, nn

from visionlora.adapters.swap import base_of, is_swapped, swap, unswap

_KEY = "_visionlora_mode"

_FOLDABLE = {
    "torch.nn.modules.batchnorm": {"BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"},
    "torchvision.ops.misc": {"FrozenBatchNorm2d"},
    "timm.layers.norm_act": {"BatchNormAct2d", "SyncBatchNormAct", "FrozenBatchNormAct2d"},
}
"""Modules that are scale and shift, then perhaps timm's ``drop`` and ``act``: module -> classes."""


def has_running_stats(module: nn.Module) -> bool:
    """Whether a training forward would change the module's statistics."""
    return module._buffers.get("running_mean") is not None or module._buffers.get("running_var") is not None


def measuring(model: nn.Module) -> list[nn.Module]:
    """The modules of a model whose statistics its next forward would change."""
    return [module for module in model.modules() if module.training and has_running_stats(module)]


def freeze(module: nn.Module) -> None:
    """Keep ``module`` in eval mode, whatever ``model.train()`` says."""
    if not is_frozen(module):
        vars(module)[_KEY] = module.training
        module.eval()
        swap(module, _members, False)


def unfreeze(module: nn.Module) -> None:
    """Let ``module`` follow ``model.train()`` again, in the mode that it would have without ``freeze``."""
    if is_frozen(module):
        unswap(module)
        module.train(vars(module).pop(_KEY))


def is_frozen(module: nn.Module) -> bool:
    """Whether ``freeze`` holds the module."""
    return is_swapped(module, _members)


def is_foldable(module: nn.Module) -> bool:
    """Whether the module is frozen, of a known class, and nothing in it trains."""
    if not is_frozen(module) or not has_running_stats(module):
        return False
    trains = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    return is_known_batchnorm(base_of(module)) and not trains


def is_known_batchnorm(base: type) -> bool:
    """Whether a frozen module of the class is scale and shift, then ``after_normalisation``."""
    return base.__name__ in _FOLDABLE.get(base.__module__, ())


def pass_through(module: nn.Module) -> None:
    """Have a frozen module pass its input on to its activation, for its scale and shift are done elsewhere."""
    unswap(module)
    swap(module, _members, True)


def stop_passing(module: nn.Module) -> None:
    """The inverse of ``pass_through``."""
    unswap(module)
    swap(module, _members, False)


def after_normalisation(module: Any, x: Tensor) -> Tensor:
    """What the module does to its normalised input: timm's BatchNormAct2d drops and activates, the others nothing."""
    for step in ("drop", "act"):
        if step in module._modules:
            x = module._modules[step](x)
    return x


def _members(_base: type, passes: bool) -> dict[str, Any]:
    members: dict[str, Any] = {"train": _stay_in_eval}
    return members | {"forward": after_normalisation} if passes else members


def _stay_in_eval(self: nn.Module, mode: bool = True) -> nn.Module:
    vars(self)[_KEY] = mode
    for module in self.modules():
        module.training = False
    return self
