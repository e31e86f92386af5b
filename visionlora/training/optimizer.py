"""AdamW with separate learning rates, and the schedule as a function of the step."""

import math
from typing import Any

import torch
from torch import nn

from visionlora.adapters.methods.base import Method
from visionlora.errors import InputError
from visionlora.sections import TrainSection


def build_optimizer(model: nn.Module, head: list[str], train: TrainSection) -> torch.optim.AdamW:
    """AdamW over what trains: the adapter (or backbone) at ``lr``, the modules ``head`` at ``head_lr``.

    What starts at zero of an adapter, LoRA's B, has ``lora_plus`` times ``lr``: LoRA+ (Hayou et al. 2024,
    arXiv:2402.12354).
    With full fine-tuning, a layer of a timm backbone has ``layer_decay`` times the rate of the layer behind it (Clark
    et al. 2020, arXiv:2003.10555, section 3.3; the layers are those that timm says a model has).
    Biases and other vectors get no weight decay, nor do the factors' norms grow without bound: they do decay.

    Raises:
        InputError: nothing trains, no method has what ``lora_plus`` is for, or no layers are known for ``layer_decay``.
    """
    methods = [module for module in model.modules() if isinstance(module, Method)]
    own = {id(parameter): method.group for method in methods for parameter in method.parameters()}
    late = {id(parameter) for method in methods for parameter in method.starting_at_zero()}
    if train.lora_plus != 1 and not late:
        raise InputError(f"train.lora_plus is {train.lora_plus:g}, and no adapter has a B; take lora.method=lora")
    scales = _layer_scales(model, train) if train.layer_decay != 1 else {}
    groups: dict[tuple[str, bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            role = "head" if any(name.startswith(f"{module}.") for module in head) else "adapter"
            role = own.get(id(parameter), role)
            if train.lora_plus != 1 and id(parameter) in late:
                role = "adapter_b"
            scale = scales.get(id(parameter), 1.0) if role != "head" else 1.0
            groups.setdefault((role, parameter.ndim > 1, scale), []).append(parameter)
    if not groups:
        raise InputError("no parameter of the model trains; give lora.targets or lora.unfreeze")
    peaks = {"head": train.head_lr, "adapter": train.lr, "adapter_b": train.lora_plus * train.lr}
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "role": role,
            "peak_lr": peaks[role] * scale,
            "weight_decay": train.weight_decay if decays else 0.0,
        }
        for (role, decays, scale), parameters in groups.items()
    ]
    # In one pass over all tensors, which leaves a step out without being asked by the CPU (see guard.py).
    fused = all(parameter.device.type in ("cpu", "cuda") for parameters in groups.values() for parameter in parameters)
    return torch.optim.AdamW(described, lr=train.lr, fused=fused or None)


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, warmup: float, total: int) -> dict[str, float]:
    """Set every group's learning rate for optimizer step ``step`` (from 0), and return each role's largest."""
    factor = schedule(step, warmup, total)
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
        rates[group["role"]] = max(group["lr"], rates.get(group["role"], 0.0))
    return rates


def _layer_scales(model: nn.Module, train: TrainSection) -> dict[int, float]:
    """What the rate of a parameter of a timm backbone is multiplied with, by the parameter's id."""
    from timm.optim import param_groups_layer_decay  # takes a second, and few runs need it

    if train.method != "full":
        raise InputError(f"train.layer_decay is {train.layer_decay:g}, and is for train.method=full alone")
    backbones = [module for module in model.modules() if hasattr(module, "group_matcher")]
    if not backbones:
        raise InputError(
            f"train.layer_decay is {train.layer_decay:g}, and no timm model is in this one, which would say what its "
            "layers are; leave it out"
        )
    found = param_groups_layer_decay(backbones[0], layer_decay=train.layer_decay)
    return {id(parameter): group["lr_scale"] for group in found for parameter in group["params"]}


def schedule(step: int, warmup: float, total: int) -> float:
    """Linear warm-up over ``warmup`` steps, then half a cosine to 0 at ``total`` (Loshchilov & Hutter 2017)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
