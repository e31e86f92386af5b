"""Whether a model has the base that an adapter's file was made on, be it in another precision."""

import re
from pathlib import Path

from torch import Tensor, nn

from visionlora.adapters.fingerprint import ROUNDED, fingerprint, frozen_tensors, has_fingerprint
from visionlora.adapters.header import Header
from visionlora.errors import InputError, some

_POSITION = re.compile(r"pos(ition)?(al)?_?(emb|enc)|rel(ative)?_?pos|relative_coords|attention_bias|attn_mask")
"""Names of what a model for another size of image has in another shape: position embeddings and their tables."""


def check_base(model: nn.Module, header: Header, path: Path, heads: bool, strict: bool) -> str:
    """Compare the frozen tensors that the adapter was made on with the model's.

    Tensors that agree bit for bit are the rule. Those that agree when the one of more bits is stored as the other
    is are the same base in another precision. Position embeddings alone may differ, for an image of another size.

    Where heads are left out, the model may lack layers that aren't adapted: the frozen head of another task.

    Returns:
        what differs and was let pass, for the report; empty if nothing.

    Raises:
        InputError: it is another base, or one that can't be compared; not with ``strict`` False.
    """
    tensors = frozen_tensors(model)
    made_on = header.architecture.get("timm") or header.architecture.get("class")
    adapted = {key.rpartition(".")[0] for key in header.layers}
    absent = [key for key in header.base if key not in tensors and (heads or key.rpartition(".")[0] in adapted)]
    if absent and strict:
        raise InputError(
            f"{path}: made on another architecture ({made_on}): this {type(model).__name__} has no {some(absent, 2)}; "
            f"create the model that it was made on"
        )
    there = {key: expected for key, expected in header.base.items() if key in tensors}
    changed = {key: expected for key, expected in there.items() if fingerprint(tensors[key]) != expected}
    if not changed and not absent:
        return ""
    rounded = [key for key, expected in changed.items() if _is_rounded(key, tensors[key], expected, header)]
    differing = [key for key in changed if key not in rounded]
    resized = [key for key in differing if _POSITION.search(key)]
    if len(resized) == len(differing) < len(there) and not absent:
        return "; ".join([*_rounding(rounded, tensors), *_resizing(resized)])
    if not strict:
        return (
            f"not the one that the adapter was made on ({made_on}): of {len(header.base)} tensors {len(differing)} "
            f"differ and {len(absent)} are absent, '{[*differing, *absent][0]}' first (strict_base=False)"
        )
    other = [key for key in differing if key not in resized] or differing
    kind = str(tensors[other[0]].dtype).removeprefix("torch.")
    if tensors[other[0]].dtype in ROUNDED and not header.rounded.get(kind):
        raise InputError(
            f"{path}: '{other[0]}' is stored in {kind} and can't be compared with what the adapter was made on "
            f"({made_on}); load it into the model in float32 and then call model.to(torch.{kind}), or pass "
            f"strict_base=False to load_adapter"
        )
    raise InputError(
        f"{path}: made on another base: {len(other)} of {len(header.base)} frozen tensors differ, "
        f"'{other[0]}' first; load the weights of {made_on} that it was made on"
    )


def _is_rounded(key: str, tensor: Tensor, expected: str, header: Header) -> bool:
    """Whether the tensor is the base's in another precision."""
    if has_fingerprint(tensor, expected):
        return True
    stored = header.rounded.get(str(tensor.dtype).removeprefix("torch."), {})
    return stored.get(key) == fingerprint(tensor)


def _rounding(keys: list[str], tensors: dict[str, Tensor]) -> list[str]:
    if not keys:
        return []
    kinds = sorted({str(tensors[key].dtype).removeprefix("torch.") for key in keys})
    stored = " and ".join(kinds)
    return [f"{len(keys)} tensors are stored in {stored}, other than the adapter's; rounded they are the same"]


def _resizing(keys: list[str]) -> list[str]:
    if not keys:
        return []
    return [f"{some(keys, 3)} differ, as for another size of image; they could not be checked"]
