"""``adapter_config.json`` as PEFT writes it: what of it we can express, and what we write."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionlora.errors import InputError, shown, some
from visionlora.plain_json import read_json

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"

_KINDS = ("LORA", "LOHA", "LOKR")
_NO_MATTER = {
    *(
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "task_type",
        "inference_mode",
        "peft_version",
        "peft_type",
    ),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "runtime_config"),
    *("qalora_group_size", "megatron_core", "ephemeral_gpu_offload", "init_weights", "eva_config", "corda_config"),
    *("lora_ga_config", "loftq_config", "ensure_weight_tying", "rank_dropout_scale", "use_effective_conv2d"),
    "decompose_both",
}
"""Settings that say how an adapter was made, or of which the tensors themselves tell."""
_READ = {
    *("r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "modules_to_save", "bias", "decompose_factor"),
    *("use_rslora", "use_dora", "init_lora_weights", "lora_dropout", "rank_dropout", "module_dropout"),
}
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "mica", "orthogonal", "lora_ga")
"""Initialisations by which PEFT changes the frozen weights, each time that the folder is loaded."""


@dataclass(frozen=True)
class PeftSettings:
    """What we take from ``adapter_config.json``.

    Attributes:
        method: the name of our method.
        rank, alpha: of layers that no pattern matches.
        rank_pattern, alpha_pattern: expression for the end of a layer's name -> its own.
        rooted: whether PEFT divides alpha by the root of the rank.
        saved: ends of the names of modules that train fully.
        biases: whether biases train besides.
        dropouts: settings of dropout that are not 0, for they act in training only.
    """

    method: str
    rank: int
    alpha: float
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    rooted: bool
    saved: list[str]
    biases: bool
    dropouts: dict[str, float]

    def rank_of(self, layer: str) -> int:
        """The rank of a layer."""
        return int(_first_match(self.rank_pattern, layer, self.rank))

    def alpha_of(self, layer: str, rank: int) -> float:
        """Our alpha of a layer: for a method that divides it by the rank, unless it is rsLoRA itself."""
        alpha = _first_match(self.alpha_pattern, layer, self.alpha)
        return alpha * math.sqrt(rank) if self.rooted and self.method != "rslora" else alpha


def read_settings(folder: Path) -> PeftSettings:
    """Read a folder's ``adapter_config.json``.

    Raises:
        InputError: there is none, it is damaged, or it asks for what we can't express; the line says what.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: holds no {CONFIG}; give a folder that PEFT's save_pretrained has written")
    try:
        values = read_json(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds {shown(values)}, and no settings")
    kind = values.get("peft_type")
    if kind not in _KINDS:
        raise InputError(f"{path}: peft_type is {shown(kind)}, and what can be read is {', '.join(_KINDS)}")
    _refuse_others(values, path)
    dropouts = {key: values[key] for key in ("lora_dropout", "rank_dropout", "module_dropout") if values.get(key)}
    rooted = bool(values.get("use_rslora"))
    methods = {"LOHA": "loha", "LOKR": "lokr", "LORA": "rslora" if rooted else "lora"}
    saved = values.get("modules_to_save") or []
    if not _is_list_of(saved, str):
        raise InputError(f"{path}: modules_to_save is {shown(saved)}, and should be a list of names")
    return PeftSettings(
        "dora" if values.get("use_dora") else methods[kind],
        _number(values, "r", int, path),
        _number(values, "lora_alpha" if kind == "LORA" else "alpha", float, path),
        _pattern(values, "rank_pattern", int, path),
        _pattern(values, "alpha_pattern", float, path),
        rooted,
        saved,
        values.get("bias", "none") != "none",
        dropouts,
    )


def write_settings(method: str, layers: dict[str, tuple[int, float]], saved: list[str], targets: Any) -> dict[str, Any]:
    """The content of ``adapter_config.json``.

    Args:
        method: the name of our method.
        layers: PEFT's name of a layer -> rank and alpha.
        saved: names of modules that train fully.
        targets: ``target_modules``.
    """
    ranks, alphas = [rank for rank, _ in layers.values()], [alpha for _, alpha in layers.values()]
    rank, alpha = _most_common(ranks, 8), _most_common(alphas, 8.0)
    settings: dict[str, Any] = {
        "peft_type": {"loha": "LOHA", "lokr": "LOKR"}.get(method, "LORA"),
        "auto_mapping": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "task_type": None,
        "r": rank,
        "target_modules": targets,
        "modules_to_save": saved or None,
        "rank_pattern": {f"^{re.escape(name)}": own for name, (own, _) in layers.items() if own != rank},
        "alpha_pattern": {f"^{re.escape(name)}": _plain(own) for name, (_, own) in layers.items() if own != alpha},
    }
    if settings["peft_type"] != "LORA":
        return settings | {"alpha": _plain(alpha), "rank_dropout": 0.0, "module_dropout": 0.0, "init_weights": True}
    return settings | {
        "lora_alpha": _plain(alpha),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": method == "rslora",
        "use_dora": method == "dora",
    }


def _refuse_others(values: dict[str, Any], path: Path) -> None:
    start = values.get("init_lora_weights", True)
    if isinstance(start, str) and start.startswith(_CHANGES_THE_BASE):
        raise InputError(
            f"{path}: init_lora_weights is '{start}', by which PEFT changes the frozen weights; convert it there first "
            f"(save_pretrained with path_initial_model_for_weight_conversion)"
        )
    if values.get("decompose_factor", -1) != -1:
        raise InputError(f"{path}: decompose_factor is {shown(values['decompose_factor'])}, and here it is always -1")
    asked = {key: value for key, value in values.items() if key not in _NO_MATTER | _READ and value}
    if asked:
        names = some([f"{key}={shown(value)}" for key, value in asked.items()], 3)
        raise InputError(f"{path}: asks for {names}, which can't be expressed here")


def _number(values: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    value = values.get(key, 8)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        raise InputError(f"{path}: {key} is {shown(value)}, and should be a number")
    return kind(value)


def _pattern(values: dict[str, Any], name: str, kind: type, path: Path) -> dict[str, Any]:
    found = values.get(name) or {}
    if not isinstance(found, dict):
        raise InputError(f"{path}: {name} is {shown(found)}, and should name layers")
    for key in found:
        try:
            re.compile(key)
        except re.error as error:
            raise InputError(f"{path}: '{key}' of {name} is no regular expression: {error}") from error
    return {key: _number(found, key, kind, path) for key in found}


def _first_match(patterns: Mapping[str, float], layer: str, otherwise: float) -> float:
    """As PEFT looks a layer up: the first expression that its name ends with, after a dot or from its start."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", layer)), otherwise)


def _is_list_of(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _most_common(values: list[Any], otherwise: Any) -> Any:
    return max(dict.fromkeys(values), key=values.count) if values else otherwise


def _plain(alpha: float) -> float | int:
    return int(alpha) if alpha == int(alpha) else alpha
