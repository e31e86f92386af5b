"""The header of an adapter's file: everything but the tensors."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.methods.registry import UnknownMethodError
from visionlora.adapters.paths import plain
from visionlora.adapters.qkv import PARTS
from visionlora.checksums import refuse_damaged
from visionlora.errors import InputError, some

FORMAT = "visionlora-adapter"
VERSION = 2
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "layers": dict,
    "unfrozen": list,
    "architecture": dict,
    "base": dict,
    "classes": (list, type(None)),
    "preprocessing": (dict, type(None)),
    "extra": dict,
}
_LATER: dict[str, Any] = {"rounded": {}}
"""Fields that older files lack, and what stands for them."""
_LAYER_FIELDS = {"rank": int, "alpha": float, "parts": str}


@dataclass(frozen=True)
class Header:
    """What an adapter's file says of itself.

    Attributes:
        config: the ``LoRAConfig`` that made it; it names the method.
        layers: parameter name -> rank, alpha, parts.
        unfrozen: names of the modules whose tensors are in the file.
        architecture: the base's class and timm name.
        base: fingerprints of the base's frozen tensors.
        classes: class names, in the order of the outputs, if they were given.
        preprocessing: input size, mean, std ..., if it was given.
        extra: whatever else the caller wrote.
        rounded: precision -> fingerprints of the base's tensors when they are stored in it; older files have none.
    """

    config: LoRAConfig
    layers: dict[str, dict[str, Any]]
    unfrozen: list[str]
    architecture: dict[str, str]
    base: dict[str, str]
    classes: list[str] | None
    preprocessing: dict[str, Any] | None
    extra: dict[str, Any]
    rounded: dict[str, dict[str, str]]


def read_header(path: str | Path) -> Header:
    """Read what an adapter's file says of itself, without its tensors.

    Raises:
        InputError: missing, truncated, damaged, no adapter, or of a newer version.
    """
    return _read(Path(path), tensors=False)[0]


def read_file(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """An adapter's header and tensors; raises as ``read_header`` does."""
    return _read(path, tensors=True)


def under_prefix(
    header: Header, tensors: dict[str, Tensor], prefix: str, path: Path
) -> tuple[Header, dict[str, Tensor]]:
    """What an adapter's file has for the module ``prefix``, under the names that this module has for it.

    Raises:
        InputError: it has nothing for such a module.
    """

    def part(values: dict[str, Any]) -> dict[str, Any]:
        return {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}

    start = f"{prefix}."
    own = part(tensors)
    if not own:
        parts = sorted({key.split(".")[0] for key in tensors})
        raise InputError(f"{path}: has nothing for a module '{prefix}'; what it has lies in {some(parts)}")
    unfrozen = [head.removeprefix(start) for head in header.unfrozen if head.startswith(start)]
    rounded = {dtype: part(digests) for dtype, digests in header.rounded.items()}
    found = replace(header, layers=part(header.layers), base=part(header.base), unfrozen=unfrozen, rounded=rounded)
    return found, own


def _read(path: Path, tensors: bool) -> tuple[Header, dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give an adapter's .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            fields = file.metadata() or {}
            refuse_damaged(path, fields)
            found = {plain(key): file.get_tensor(key) for key in file.keys()} if tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); copy or save it again") from error
    if fields.get("format") != FORMAT:
        raise InputError(
            f"{path}: a safetensors file, but no visionlora adapter; for plain weights use the model's loader"
        )
    version = fields.get("format_version", "")
    if version not in ("1", str(VERSION)):
        raise InputError(
            f"{path}: adapter format {version or 'unknown'}, and this visionlora reads formats 1 and {VERSION}; "
            f"install visionlora {fields.get('visionlora', '(unknown)')}, which wrote it"
        )
    try:
        return _parse(fields), found
    except UnknownMethodError as error:
        raise InputError(f"{path}: {error}; register it first (visionlora.adapters.methods.registry)") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the adapter's header is damaged ({error}); save it again") from error


def _parse(fields: dict[str, str]) -> Header:
    config = LoRAConfig.from_dict(json.loads(fields["config"]))
    values = {name: _plain(json.loads(fields[name])) for name in _FIELDS}
    values |= {name: json.loads(fields[name]) if name in fields else other for name, other in _LATER.items()}
    for name, kinds in [*_FIELDS.items(), *((name, type(other)) for name, other in _LATER.items())]:
        if not isinstance(values[name], kinds):
            raise TypeError(f"{name} is {fields[name][:20]}")
    for key, layer in values["layers"].items():
        if fields["format_version"] == "1" and layer.pop("rslora") is not (config.method == "rslora"):
            raise ValueError(f"rslora of {key} is not what its method, {config.method}, says")
        for name, kind in _LAYER_FIELDS.items():
            if type(layer[name]) is not kind:
                raise TypeError(f"{name} of {key} is {layer[name]!r}")
        LoRAConfig(layer["rank"], layer["alpha"])
        if not set(filter(None, layer["parts"].split(","))) <= set(PARTS):
            raise ValueError(f"parts of {key} are {layer['parts']!r}")
    return Header(config, **values)


def _plain(value: Any) -> Any:
    """The value, names in it without torch.compile's wrappers."""
    if isinstance(value, dict):
        return {plain(key): entry for key, entry in value.items()}
    return [plain(entry) if isinstance(entry, str) else entry for entry in value] if isinstance(value, list) else value
