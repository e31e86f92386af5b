"""One layer's tensors, as PEFT has them and as we do, and what stands between them."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters.forward import is_known
from visionlora.adapters.methods.dora import DoRA
from visionlora.adapters.methods.loha import LoHa
from visionlora.adapters.methods.lokr import LoKr
from visionlora.adapters.methods.lora import LoRA

_TENSOR = re.compile(
    r"(?P<layer>.+)\.(?P<name>lora_[AB](?=\.weight$)|lora_magnitude_vector|(?:lokr|hada)_[a-z0-9_]+)(?:\.weight)?"
)
OUT_PROJ = "base_layer.out_proj"
"""Where PEFT has the output projection of an adapted ``nn.MultiheadAttention``."""


def tensor_of_layer(key: str) -> tuple[str, str] | None:
    """A key of PEFT's, without its prefix -> the layer's name and the tensor's; None if it is no adapter's."""
    found = _TENSOR.fullmatch(key)
    return (found["layer"], found["name"]) if found else None


def obstacle(layer: Any, method: str) -> str:
    """Why PEFT's layer of this method does not compute what ours does, or an empty string."""
    base: Any = type(layer)
    if issubclass(base, nn.MultiheadAttention):
        if method not in ("lora", "rslora", "lora_fa"):
            return f"PEFT has no {method} for nn.MultiheadAttention"
        return (
            "" if layer.in_proj_weight is not None else "PEFT wants q, k and v of nn.MultiheadAttention in one weight"
        )
    if not issubclass(base, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return f"PEFT does not adapt {base.__name__}"
    if not is_known(base):
        return f"what {base.__name__} does to its weight, PEFT would not do to the update"
    if issubclass(base, nn.Linear):
        return ""
    if layer.padding_mode != "zeros":
        return f"PEFT drops its padding_mode ({layer.padding_mode})"
    if method in ("loha", "lokr"):
        if issubclass(base, nn.Conv3d):
            return f"PEFT has no {method} for Conv3d"
        return f"PEFT drops the padding of {base.__name__}" if base.__name__ == "Conv2dSame" else ""
    if layer.groups != 1:
        return f"PEFT's update of a convolution in {layer.groups} groups has another shape"
    return f"PEFT drops its dilation ({layer.dilation})" if any(step != 1 for step in layer.dilation) else ""


def to_peft(method: nn.Module) -> dict[str, Tensor]:
    """A method's tensors under PEFT's names and in its shapes, for a layer without an ``obstacle``.

    Raises:
        ValueError: PEFT has no such method, or reads its tensors otherwise; the message says why.
    """
    if isinstance(method, LoKr):
        return _lokr_to_peft(method)
    if isinstance(method, LoHa):
        return {name: tensor.flatten(1) for name, tensor in method.state_dict().items()}
    if not isinstance(method, LoRA):
        raise ValueError(f"PEFT has no {type(method).__name__}")
    ones = [1] * (method.lora_A.dim() - 2)
    A, B = method.lora_A.detach(), method.lora_B.detach()
    if method.subtracts:  # as a plain adapter of twice the rank
        assert method.lora_A_start is not None and method.lora_B_start is not None
        A, B = torch.cat([A, method.lora_A_start]), torch.cat([B, -method.lora_B_start], dim=1)
    found = {"lora_A.weight": A, "lora_B.weight": B.view(*B.shape, *ones)}
    if isinstance(method, DoRA):
        length = method.lora_magnitude
        found["lora_magnitude_vector"] = length.view(1, -1, *ones) if ones else length
    return found


def from_peft(tensors: dict[str, Tensor], method: str, shape: torch.Size, rank: int) -> tuple[int, dict[str, Tensor]]:
    """The inverse: the rank, and our method's tensors, for a weight of this shape (dim0, ...).

    ``rank`` counts where the tensors don't show it.

    Raises:
        ValueError: they are not all there, or can't be expressed; the message says why.
    """
    if method == "lokr":
        return rank, _lokr_from_peft(tensors, shape)
    if method == "loha":
        return _loha_from_peft(tensors, shape)
    A, B = _taken(tensors, "lora_A"), _taken(tensors, "lora_B")
    ours = {"lora_A": A, "lora_B": B.flatten(1)}
    if method == "dora":
        ours["lora_magnitude"] = _taken(tensors, "lora_magnitude_vector").flatten()
    return len(A), ours


def _taken(tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"there is no {name}")
    return tensors[name]


def _lokr_to_peft(method: LoKr) -> dict[str, Tensor]:
    tensors = dict(method.state_dict())
    if "lokr_w2" in tensors and tensors["lokr_w2"].dim() == 3:
        raise ValueError("PEFT orders the product of a Conv1d otherwise where its block is no product of two")
    if "lokr_w2_b" in tensors:
        tensors["lokr_w2_b"] = tensors["lokr_w2_b"].flatten(1)
    return tensors


def _lokr_from_peft(tensors: dict[str, Tensor], shape: torch.Size) -> dict[str, Tensor]:
    both = "lokr_w1_a" in tensors  # decompose_both
    w1 = tensors["lokr_w1_a"] @ _taken(tensors, "lokr_w1_b") if both else _taken(tensors, "lokr_w1")
    columns = shape[1] // max(w1.shape[1], 1)
    if "lokr_w2" in tensors:
        if tensors["lokr_w2"].dim() == 3:
            raise ValueError("PEFT orders the product of a Conv1d otherwise where its block is no product of two")
        return {"lokr_w1": w1, "lokr_w2": tensors["lokr_w2"]}
    w2_a, w2_b = _taken(tensors, "lokr_w2_a"), _taken(tensors, "lokr_w2_b")
    if "lokr_t2" in tensors:
        w2_a, w2_b = _without_core(tensors["lokr_t2"], w2_a, w2_b)
    return {"lokr_w1": w1, "lokr_w2_a": w2_a, "lokr_w2_b": w2_b.reshape(len(w2_b), columns, *shape[2:])}


def _loha_from_peft(tensors: dict[str, Tensor], shape: torch.Size) -> tuple[int, dict[str, Tensor]]:
    found: dict[str, Tensor] = {}
    for each in ("1", "2"):
        a, b = _taken(tensors, f"hada_w{each}_a"), _taken(tensors, f"hada_w{each}_b")
        if f"hada_t{each}" in tensors:
            a, b = _without_core(tensors[f"hada_t{each}"], a, b)
        found |= {f"hada_w{each}_a": a, f"hada_w{each}_b": b.reshape(len(b), *shape[1:])}
    return len(found["hada_w1_b"]), found


def _without_core(core: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The same product without the core of ``use_effective_conv2d``.

    core (r, r, kh, kw), a (r, n), b (r, c) -> a (n, r), b (r, c * kernel).
    """
    return a.t(), torch.einsum("ijkl,jc->ickl", core, b).flatten(1)
