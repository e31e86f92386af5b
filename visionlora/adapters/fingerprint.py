"""The base that an adapter was made on: its architecture and the fingerprints of its frozen tensors."""

import hashlib

import torch
from torch import Tensor, nn

from visionlora.adapters.adaptable import base_modules
from visionlora.adapters.paths import join, unwrapped
from visionlora.adapters.state import base_tensors, direct_tensors, values_of

EXACT = (torch.float32, torch.float64)
ROUNDED = (torch.bfloat16, torch.float16)
_KNOWN = "_visionlora_fingerprints"


def architecture(model: nn.Module) -> dict[str, str]:
    """The model's class, and timm's name for the architecture where there is one."""
    model = unwrapped(model)
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
    modules = dict(base_modules(model))
    # By identity: what is tied has one owner, and is in other modules, too.
    mine: set[int] = set()
    base: dict[int, Tensor] = {}
    for module in modules.values():
        live, values = direct_tensors(module), base_tensors(module)
        mine |= {id(live[name]) for name in (values_of(module, adapter) if adapter else ())}
        base |= {id(live[name]): value for name, value in values.items() if value is not live[name]}
        for name, known in vars(module).get(_KNOWN, {}).items():
            setattr(live[name], _KNOWN, known)
    return {
        join(path, name): base.get(id(tensor), tensor)
        for path, module in modules.items()
        for name, tensor in direct_tensors(module).items()
        if id(tensor) not in mine and name != "num_batches_tracked" and name not in module._non_persistent_buffers_set
    }


def rounded_fingerprints(tensors: dict[str, Tensor]) -> dict[str, dict[str, str]]:
    """For each precision below float32 the fingerprints that tensors of more bits have when they are stored in it."""
    exact = {name: tensor for name, tensor in tensors.items() if tensor.dtype in EXACT}
    return {
        str(dtype).removeprefix("torch."): {name: _rounded(tensor, dtype) for name, tensor in exact.items()}
        for dtype in ROUNDED
    }


def has_fingerprint(tensor: Tensor, expected: str) -> bool:
    """Whether the tensor has this fingerprint in its own precision, or when it is stored in another that has less."""
    if fingerprint(tensor) == expected:
        return True
    fewer = [dtype for dtype in (*EXACT, *ROUNDED) if tensor.dtype in EXACT and dtype != tensor.dtype]
    return any(_rounded(tensor, dtype) == expected for dtype in fewer)


def all_fingerprints(tensor: Tensor) -> dict[torch.dtype, str]:
    """Of the tensor, and of itself stored in each precision below, for ``remember``."""
    below = ROUNDED if tensor.dtype in EXACT else ()
    return {tensor.dtype: fingerprint(tensor), **{dtype: fingerprint(_stored(tensor, dtype)) for dtype in below}}


def remember(module: nn.Module, name: str, known: dict[torch.dtype, str]) -> None:
    """Let what stands there in the place of a frozen tensor, a part of it, have the fingerprints of the whole."""
    vars(module).setdefault(_KNOWN, {})[name] = known


def fingerprint(tensor: Tensor) -> str:
    """16 hexadecimal digits for dtype, shape and bytes; of a tensor that is made of several, for all of them."""
    if (known := getattr(tensor, _KNOWN, None)) is not None:
        found: str = known[tensor.dtype]
        return found
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        parts = " ".join(fingerprint(getattr(tensor, name)) for name in names)
        return hashlib.sha256(f"{type(tensor).__name__} {parts}".encode()).hexdigest()[:16]
    contiguous = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{contiguous.dtype} {tuple(contiguous.shape)}".encode())
    digest.update(contiguous.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def digest(model: nn.Module) -> str:
    """SHA-256 over the names and the bytes of all that ``state_dict`` holds: equal where two models are, to the bit."""
    told = "\n".join(f"{name} {fingerprint(tensor)}" for name, tensor in model.state_dict().items())
    return hashlib.sha256(told.encode()).hexdigest()


def _rounded(tensor: Tensor, dtype: torch.dtype) -> str:
    known = getattr(tensor, _KNOWN, None)
    return fingerprint(_stored(tensor, dtype)) if known is None else known.get(dtype, "")


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # On the CPU, for rounding should be the same everywhere.
    return tensor.detach().cpu().to(dtype)
