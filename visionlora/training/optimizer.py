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
    Biases and other vectors get no weight decay, nor do the factors' norms grow without bound: they do decay.

    Raises:
        InputError: nothing trains, or no method has what ``lora_plus`` is for.
    """
    methods = [module for module in model.modules() if isinstance(module, Method)]
    own = {id(parameter): method.group for method in methods for parameter in method.parameters()}
    late = {id(parameter) for method in methods for parameter in method.starting_at_zero()}
    if train.lora_plus != 1 and not late:
        raise InputError(f"train.lora_plus is {train.lora_plus:g}, and no adapter has a B; take lora.method=lora")
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            role = "head" if any(name.startswith(f"{module}.") for module in head) else "adapter"
            role = own.get(id(parameter), role)
            if train.lora_plus != 1 and id(parameter) in late:
                role = "adapter_b"
            groups.setdefault((role, parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise InputError("no parameter of the model trains; give lora.targets or lora.unfreeze")
    peaks = {"head": train.head_lr, "adapter": train.lr, "adapter_b": train.lora_plus * train.lr}
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "role": role,
            "peak_lr": peaks[role],
            "weight_decay": train.weight_decay if decays else 0.0,
        }
        for (role, decays), parameters in groups.items()
    ]
    # In one pass over all tensors, which leaves a step out without being asked by the CPU (see guard.py).
    fused = all(parameter.device.type in ("cpu", "cuda") for parameters in groups.values() for parameter in parameters)
    return torch.optim.AdamW(described, lr=train.lr, fused=fused or None)


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, warmup: float, total: int) -> dict[str, float]:
    """Set every group's learning rate for optimizer step ``step`` (from 0), and return them by role."""
    factor = schedule(step, warmup, total)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return {group["role"]: group["lr"] for group in optimizer.param_groups}


def schedule(step: int, warmup: float, total: int) -> float:
    """Linear warm-up over ``warmup`` steps, then half a cosine to 0 at ``total`` (Loshchilov & Hutter 2017)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
