"""The header of an adapter's file: everything but the tensors."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.header_schema import check_fields, check_number_of_classes, check_settings
from visionlora.adapters.methods.registry import UnknownMethodError
from visionlora.adapters.paths import plain
from visionlora.adapters.qkv import PARTS
from visionlora.checksums import refuse_damaged
from visionlora.errors import InputError, shown, some
from visionlora.plain_json import read_json
from visionlora.tensor_files import open_tensors, shapes_of

FORMAT = "visionlora-adapter"
VERSION = 2
_FIELDS = ("layers", "unfrozen", "architecture", "base", "classes", "preprocessing", "extra")
_LATER: dict[str, Any] = {"rounded": {}}
"""Fields that older files lack, and what stands for them."""


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


def refuse_unreadable(fields: dict[str, str], path: Path) -> None:
    """Raise InputError for a header that ``read_header`` would not take."""
    try:
        _parse(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: can't be written as an adapter's file: {error}") from error


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
    with open_tensors(path) as file:
        fields: dict[str, str] = file.metadata() or {}
        refuse_damaged(path, fields)
        shapes = shapes_of(file)
        found = {plain(key): file.get_tensor(key) for key in shapes} if tensors else {}
    if fields.get("format") != FORMAT:
        raise InputError(
            f"{path}: a safetensors file, but no visionlora adapter; for plain weights use the model's loader"
        )
    version = fields.get("format_version", "")
    if version not in ("1", str(VERSION)):
        raise InputError(
            f"{path}: adapter format {version[:20] or 'unknown'}, and this visionlora reads formats 1 and {VERSION}; "
            f"install visionlora {fields.get('visionlora', '(unknown)')[:20]}, which wrote it"
        )
    try:
        header = _parse(fields)
        check_number_of_classes(header.classes, shapes.values())
        return header, found
    except UnknownMethodError as error:
        raise InputError(f"{path}: {error}; register it first (visionlora.adapters.methods.registry)") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the adapter's header is damaged ({error}); save it again") from error


def _parse(fields: dict[str, str]) -> Header:
    settings = read_json(fields["config"])
    check_settings(settings)
    config = LoRAConfig.from_dict(settings)
    values = {name: _plain(read_json(fields[name])) for name in _FIELDS}
    values |= {name: read_json(fields[name]) if name in fields else other for name, other in _LATER.items()}
    if fields["format_version"] == "1":
        _take_rslora_out(values["layers"], config)
    check_fields(values)
    for key, layer in values["layers"].items():
        LoRAConfig(layer["rank"], layer["alpha"])
        if not set(filter(None, layer["parts"].split(","))) <= set(PARTS):
            raise ValueError(f"parts of {key} are {shown(layer['parts'])}")
    return Header(config, **values)


def _take_rslora_out(layers: Any, config: LoRAConfig) -> None:
    """Format 1 says it of each layer."""
    for key, layer in layers.items() if isinstance(layers, dict) else ():
        if isinstance(layer, dict) and layer.pop("rslora") is not (config.method == "rslora"):
            raise ValueError(f"rslora of {key} is not what its method, {config.method}, says")


def _plain(value: Any) -> Any:
    """The value, names in it without torch.compile's wrappers."""
    if isinstance(value, dict):
        return {plain(key): entry for key, entry in value.items()}
    return [plain(entry) if isinstance(entry, str) else entry for entry in value] if isinstance(value, list) else value
