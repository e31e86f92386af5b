"""The base that an adapter was made on: its architecture and the fingerprints of its frozen tensors."""

import hashlib

import torch
from torch import Tensor, nn

from visionlora.adapters.state import base_tensors, values_of
from visionlora.adapters.targets import base_modules


def architecture(model: nn.Module) -> dict[str, str]:
    """The model's class, and timm's name for the architecture where there is one."""
    found = {"class": f"{type(model).__module__}.{type(model).__qualname__}"}
    timm_config = getattr(model, "default_cfg", None)
    if isinstance(timm_config, dict) and timm_config.get("architecture"):
        found["timm"] = str(timm_config["architecture"])
    return found


def fingerprints(model: nn.Module, adapter: str = "") -> dict[str, str]:
    """Fingerprint of each of the base's tensors, by name, without those that ``adapter`` owns.

    Left out are heads that train (they are in the adapter's file), counters of BatchNorm, and buffers
    that ``state_dict`` leaves out.
    """
    return {name: fingerprint(tensor) for name, tensor in frozen_tensors(model, adapter).items()}


def frozen_tensors(model: nn.Module, adapter: str = "") -> dict[str, Tensor]:
    """The tensors that ``fingerprints`` looks at."""
    found = {}
    for path, module in base_modules(model):
        mine = values_of(module, adapter) if adapter else {}
        for name, tensor in base_tensors(module).items():
            if name in mine or name == "num_batches_tracked" or name in module._non_persistent_buffers_set:
                continue
            found[f"{path}.{name}".lstrip(".")] = tensor
    return found


def fingerprint(tensor: Tensor) -> str:
    """16 hexadecimal digits for dtype, shape and bytes."""
    contiguous = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{contiguous.dtype} {tuple(contiguous.shape)}".encode())
    digest.update(contiguous.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
