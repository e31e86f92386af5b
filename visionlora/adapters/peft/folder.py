"""PEFT's folders: ``adapter_config.json`` and ``adapter_model.safetensors``, onto a model and from one."""

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visionlora.adapters.adaptable import base_modules
from visionlora.adapters.attached import check_name, description_of
from visionlora.adapters.config import exactly
from visionlora.adapters.header import Header
from visionlora.adapters.layer import adapted_layers, methods_of
from visionlora.adapters.loading import load_read
from visionlora.adapters.methods.base import Method
from visionlora.adapters.methods.lora import LoRA
from visionlora.adapters.others import refuse_foreign
from visionlora.adapters.paths import join
from visionlora.adapters.patterns import is_under
from visionlora.adapters.peft.layers import OUT_PROJ, from_peft, obstacle, tensor_of_layer, to_peft
from visionlora.adapters.peft.settings import CONFIG, TENSORS, PeftSettings, read_settings, write_settings
from visionlora.adapters.report import Report
from visionlora.adapters.saving import trained_values
from visionlora.errors import InputError, did_you_mean
from visionlora.files import new_folder
from visionlora.tensor_files import open_tensors, write_tensors

_PREFIX = "base_model.model."
_TIMES = 2
"""How often PEFT (0.21.2) adds the update of an attention's output projection: ahead of its own merge, and in it."""
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def load_peft(model: nn.Module, folder: str | Path, name: str = "default") -> Report:
    """Attach an adapter that PEFT saved, and make it the active one; PEFT need not be installed.

    The model computes what PEFT's does in eval mode. PEFT does not say which base an adapter was made on, so that
    nothing checks that this is the one. Dropout is left out, with a warning, for it drops from a layer's input.

    Args:
        model: the plain model that was given to ``get_peft_model``, with the same weights.
        folder: as ``save_pretrained`` writes it: LoRA, rsLoRA, DoRA, LoHa or LoKr.
        name: for the adapter on this model.

    Returns:
        the report, as from ``attach``.

    Raises:
        InputError: the folder is damaged, doesn't fit the model, or holds what can't be expressed; the model is then
            unchanged.
    """
    folder = Path(folder)
    check_name(model, name)
    refuse_foreign(model)
    settings = read_settings(folder)
    header, tensors = _ours(dict(base_modules(model)), settings, read_tensors(folder), folder / TENSORS)
    report = load_read(model, header, tensors, folder / TENSORS, name)
    if settings.dropouts:
        left = ", ".join(f"{key}={value}" for key, value in settings.dropouts.items())
        warnings.warn(
            f"{folder / CONFIG}: {left} is left out: here nothing is dropped from a layer's input", stacklevel=2
        )
    return report


def save_peft(model: nn.Module, folder: str | Path, name: str = "default") -> None:
    """Write an adapter as a folder that PEFT's ``PeftModel.from_pretrained`` reads.

    Args:
        model: the module that ``attach`` was called on.
        folder: absent or empty; written as a whole or not at all.
        name: of the adapter.

    Raises:
        InputError: the folder holds something, the model has no such adapter, or PEFT can't express what it does;
            nothing is written then.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; give an absent or empty folder")
    config, _ = description_of(model, name)
    modules = dict(base_modules(model))
    values, unfrozen = trained_values(model, name)
    saved = _saved_modules(modules, values, unfrozen)
    layers, tensors = _theirs(model, name, modules)
    _refuse_confusion(saved, layers, modules)
    for path in saved:
        tensors |= {
            join(path, key): values.get(join(path, key), own) for key, own in modules[path].state_dict().items()
        }
    settings = write_settings(config.method, layers, saved, _target_modules(layers, modules))
    with new_folder(folder) as temporary:
        write_tensors({_PREFIX + key: tensor for key, tensor in tensors.items()}, temporary / TENSORS, {"format": "pt"})
        (temporary / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder under the model's own names. InputError if they are absent or damaged."""
    path = folder / TENSORS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        what = "holds its tensors as a pickle; have PEFT save it with safe_serialization" if pickled else "is not there"
        raise InputError(f"{path}: {what}")
    with open_tensors(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if other := [key for key in tensors if not key.startswith(_PREFIX)]:
        raise InputError(f"{path}: '{other[0]}' does not start with '{_PREFIX}', as PEFT's names do")
    return {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items()}


def _ours(
    modules: dict[str, nn.Module], settings: PeftSettings, theirs: dict[str, Tensor], path: Path
) -> tuple[Header, dict[str, Tensor]]:
    """A folder's content as an adapter's file has it."""
    by_layer: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for key, tensor in theirs.items():
        if (found := tensor_of_layer(key)) is None:
            rest[key] = tensor
        else:
            by_layer.setdefault(found[0], {})[found[1]] = tensor
    layers: dict[str, dict[str, Any]] = {}
    tensors: dict[str, Tensor] = {}
    for layer, factors in by_layer.items():
        key, rank, own = _our_layer(modules, settings, layer, factors, path)
        # PEFT looks the output projection of an attention up as the attention.
        alpha = settings.alpha_of(layer.removesuffix(f".{OUT_PROJ}"), rank)
        alpha = _TIMES * alpha if layer.endswith(f".{OUT_PROJ}") else alpha
        layers[key] = {"rank": rank, "alpha": alpha, "parts": ""}
        tensors |= {f"{key}.{factor}": tensor for factor, tensor in own.items()}
    values, unfrozen = _our_values(modules, settings, rest, path)
    ranks = {key.rpartition(".")[0]: layer["rank"] for key, layer in layers.items()}
    alphas = {key.rpartition(".")[0]: layer["alpha"] for key, layer in layers.items()}
    try:
        config = exactly(settings.method, ranks, alphas, unfrozen)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Header(config, layers, unfrozen, {}, {}, None, None, {}, {}), tensors | values


def _our_layer(
    modules: dict[str, nn.Module], settings: PeftSettings, name: str, factors: dict[str, Tensor], path: Path
) -> tuple[str, int, dict[str, Tensor]]:
    """Name of the adapted parameter, rank and tensors of our method, from PEFT's tensors of a layer."""
    layer_path = name.replace(".base_layer", "")
    layer = modules.get(layer_path)
    if layer is None:
        raise InputError(f"{path}: adapts '{layer_path}', which the model has not{did_you_mean(layer_path, modules)}")
    above = modules[layer_path.rpartition(".")[0]]
    out_proj = name.endswith(f".{OUT_PROJ}") and isinstance(above, nn.MultiheadAttention)
    if reason := "" if out_proj else obstacle(layer, settings.method):
        raise InputError(f"{path}: {layer_path} can't be read: {reason}")
    parameter = "in_proj_weight" if isinstance(layer, nn.MultiheadAttention) else "weight"
    weight = layer._parameters.get(parameter)
    if weight is None:
        raise InputError(f"{path}: {layer_path} can't be read: its {parameter} is made of other tensors")
    try:
        rank, own = from_peft(factors, settings.method, weight.shape, settings.rank_of(name))
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        raise InputError(f"{path}: the tensors of {layer_path} are no {settings.method}: {error}") from error
    return join(layer_path, parameter), rank, own


def _our_values(
    modules: dict[str, nn.Module], settings: PeftSettings, theirs: dict[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of what trains fully, and the names of the modules and parameters that they are of."""
    values: dict[str, Tensor] = {}
    unfrozen: dict[str, None] = {}
    for theirs_key, tensor in theirs.items():
        if ".original_module." in theirs_key:
            continue  # The base's biases of a saved module, which PEFT keeps as well.
        key = re.sub(r"\.modules_to_save(\.default)?(?=\.)|\.base_layer(?=\.)", "", theirs_key)
        parts = key.split(".")
        above = [".".join(parts[:depth]) for depth in range(1, len(parts))]
        roots = [root for root in above if root in modules and any(root.endswith(end) for end in settings.saved)]
        if roots:
            unfrozen[roots[0]] = None
        elif settings.biases and "bias" in key:
            unfrozen[key] = None
        else:
            raise InputError(
                f"{path}: '{key}' is of no adapter, and of no module in modules_to_save that the model has"
            )
        values[key] = tensor
    return values, list(unfrozen)


def _theirs(
    model: nn.Module, name: str, modules: dict[str, nn.Module]
) -> tuple[dict[str, tuple[int, float]], dict[str, Tensor]]:
    """PEFT's layers with their rank and alpha, and the tensors of all adapted ones, by PEFT's names."""
    config, _ = description_of(model, name)
    layers: dict[str, tuple[int, float]] = {}
    out_projs: dict[str, tuple[int, float]] = {}
    tensors: dict[str, Tensor] = {}
    for path, layer in adapted_layers(model):
        for parameter, method in methods_of(layer, name).items():
            parent, _, last = path.rpartition(".")
            is_out_proj = last == "out_proj" and isinstance(modules[parent], nn.MultiheadAttention)
            found = _their_tensors(method, layer, config.method, path, is_out_proj)
            key = f"{join(parent, OUT_PROJ)}" if is_out_proj else path
            (out_projs if is_out_proj else layers)[parent if is_out_proj else path] = _size_of(method)
            tensors |= {join(key, factor): tensor for factor, tensor in found.items()}
            if not is_out_proj and parameter not in ("weight", "in_proj_weight"):
                raise InputError(f"{path}.{parameter}: PEFT has no update of it")
    for path in dict.fromkeys((*layers, *out_projs)):
        if isinstance(modules[path], nn.MultiheadAttention):
            (rank, alpha), (own_rank, own_alpha) = layers.get(path, (0, 1.0)), out_projs.get(path, (0, 1.0))
            if rank != own_rank:
                raise InputError(
                    f"{path}: PEFT adapts in_proj_weight and out_proj of nn.MultiheadAttention together; give both one "
                    f"rank, or adapt neither"
                )
            key = join(join(path, OUT_PROJ), "lora_B.weight")
            tensors[key] = own_alpha / alpha / _TIMES * tensors[key]
    return layers, tensors


def _size_of(method: Method) -> tuple[int, float]:
    """Rank and alpha of what ``to_peft`` gives."""
    if isinstance(method, LoRA) and method.subtracts:
        rank = 2 * method.rank
        return rank, method.alpha / method.divisor(method.rank) * method.divisor(rank)
    return method.rank, method.alpha


def _their_tensors(method: Method, layer: nn.Module, name: str, path: str, is_out_proj: bool) -> dict[str, Tensor]:
    if method.parts:
        raise InputError(f"{path}: PEFT adapts a fused projection as a whole, and this adapter its {method.parts} only")
    if reason := "" if is_out_proj else obstacle(layer, name):
        raise InputError(f"{path}: can't be written for PEFT: {reason}; leave it out of the targets")
    try:
        return to_peft(method)
    except ValueError as error:
        raise InputError(f"{path}: can't be written for PEFT: {error}") from error


def _saved_modules(modules: dict[str, nn.Module], values: Iterable[str], unfrozen: list[str]) -> list[str]:
    """Names of the modules that PEFT is to save as a whole."""
    for root in unfrozen:
        if root not in modules:
            raise InputError(f"'{root}' is a parameter that trains by itself; PEFT saves whole modules")
        if isinstance(modules[root], _CONTAINERS):
            kind = type(modules[root]).__name__
            raise InputError(f"'{root}' is a {kind}, which PEFT does not save; unfreeze its parts")
    batchnorms = dict.fromkeys(key.rpartition(".")[0] for key in values if not is_under(key, unfrozen))
    return [*unfrozen, *batchnorms]


def _refuse_confusion(saved: list[str], layers: Iterable[str], modules: dict[str, nn.Module]) -> None:
    """Raise InputError where PEFT, which goes by the ends of names, would take another module for a saved one."""
    for root in saved:
        if other := [path for path in modules if path != root and path.endswith(root) and path not in saved]:
            raise InputError(f"PEFT would save '{other[0]}' along with '{root}', for it goes by the end of a name")
        if hidden := [path for path in layers if re.match(rf"(^|.*\.){root}($|\..*)", path)]:
            raise InputError(f"PEFT would not adapt '{hidden[0]}', for it takes it for a part of '{root}'")


def _target_modules(layers: Iterable[str], modules: dict[str, nn.Module]) -> list[str] | str:
    """``target_modules``: names, or one expression where a name is the end of a module's that is not adapted."""
    names = list(layers)
    ends = tuple(f".{name}" for name in names)
    if any(path.endswith(ends) and path not in names for path in modules):
        return "|".join(map(re.escape, names))
    return names
