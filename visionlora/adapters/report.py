"""What ``attach`` did, as a table."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from visionlora.adapters.adaptable import base_modules
from visionlora.adapters.forward import is_known
from visionlora.adapters.methods.base import Method
from visionlora.adapters.targets import LeftOut, Target
from visionlora.adapters.unfreezing import unfrozen_parameters


@dataclass(frozen=True)
class AdaptedLayer:
    """One adapted parameter: its layer, shape, rank (None for a method without) and the adapter's parameters."""

    path: str
    kind: str
    parameter: str
    parts: str
    shape: tuple[int, ...]
    rank: int | None
    parameters: int
    note: str = ""

    @property
    def name(self) -> str:
        """The layer's name, with the parameter if it is not ``weight``, and with the parts."""
        name = self.path if self.parameter == "weight" else f"{self.path}.{self.parameter}"
        return f"{name}:{self.parts}" if self.parts else name


@dataclass(frozen=True)
class Report:
    """The result of attaching an adapter.

    Attributes:
        adapted: every adapted parameter.
        unfrozen: (name, parameters) for every module, or parameter on its own, that trains fully.
        left_out: every other layer with parameters, with the reason.
        total: parameters of the model without adapters.
        file_bytes: bytes of the tensors in the adapter's file, as far as they are known now.
        base: what of the base is not that of the adapter's file, or could not be checked; empty if nothing.
    """

    name: str
    adapted: list[AdaptedLayer]
    unfrozen: list[tuple[str, int]]
    left_out: list[LeftOut]
    total: int
    file_bytes: int
    base: str = ""

    @property
    def adapter_parameters(self) -> int:
        """Parameters of the adapter's methods."""
        return sum(layer.parameters for layer in self.adapted)

    @property
    def trainable(self) -> int:
        """Parameters that train: the methods' and unfrozen modules'."""
        return self.adapter_parameters + sum(parameters for _, parameters in self.unfrozen)

    def __str__(self) -> str:
        groups: dict[tuple[str, ...], list[AdaptedLayer]] = {}
        for layer in self.adapted:
            shape = " x ".join(map(str, layer.shape))
            key = (collapse(layer.name), layer.kind, shape, str(layer.rank or ""), layer.note)
            groups.setdefault(key, []).append(layer)
        rows = []
        for (name, kind, shape, rank, note), layers in groups.items():
            shown = name if len(layers) > 1 else layers[0].name
            size = sum(layer.parameters for layer in layers)
            rows.append((shown, kind, str(len(layers)), shape, rank, f"{size:,}", note))
        fully: dict[str, list[tuple[str, int]]] = {}
        for path, size in self.unfrozen:
            fully.setdefault(collapse(path), []).append((path, size))
        for name, found in fully.items():
            shown, size = name if len(found) > 1 else found[0][0], sum(size for _, size in found)
            rows.append((shown, "trains fully", str(len(found)), "", "", f"{size:,}", ""))
        share = 100 * self.trainable / max(self.total, 1)
        summary = (
            f"adapter '{self.name}': {self.trainable:,} of {self.total:,} parameters train ({share:.2f}%), "
            f"{self.file_bytes / 1e6:.2f} MB to save"
        )
        columns = ("layer", "kind", "n", "weight", "rank", "parameters", "")
        base = [f"base: {self.base}"] if self.base else []
        return "\n".join([table(columns, rows), summary, *base, *self._left_out_lines()])

    def _left_out_lines(self) -> list[str]:
        reasons: dict[str, dict[tuple[str, str], list[str]]] = {}
        for layer in self.left_out:
            key = (collapse(layer.path), layer.kind)
            reasons.setdefault(layer.reason, {}).setdefault(key, []).append(layer.path or "(the model itself)")
        return [
            f"left out, {reason}: "
            + ", ".join(
                f"{name} ({kind} x {len(paths)})" if len(paths) > 1 else f"{paths[0]} ({kind})"
                for (name, kind), paths in groups.items()
            )
            for reason, groups in reasons.items()
        ]


def describe(
    model: nn.Module, name: str, methods: dict[Target, Method], unfrozen: list[str], left_out: list[LeftOut]
) -> Report:
    """The report of an adapter that is about to be installed on the model."""
    adapted = []
    for target, method in methods.items():
        layer = model.get_submodule(target.path)
        weight = layer._parameters[target.parameter]
        assert weight is not None
        size = sum(factor.numel() for factor in method.parameters())
        kind, shape = type(layer).__name__, tuple(weight.shape)
        rank, note = method.rank if method.has_rank else None, _note(layer, target.parameter, method)
        adapted.append(AdaptedLayer(target.path, kind, target.parameter, target.parts, shape, rank, size, note))
    sizes = [(root, sum(p.numel() for p in unfrozen_parameters(model, root))) for root in unfrozen]
    parameters = [p for _, module in base_modules(model) for p in module.parameters(recurse=False)]
    total = sum(p.numel() for p in parameters if not nn.parameter.is_lazy(p))
    file_bytes = methods_bytes(methods.values()) + unfrozen_bytes(model, unfrozen)
    return Report(name, adapted, sizes, left_out, total, file_bytes)


def methods_bytes(methods: Iterable[Method]) -> int:
    """Bytes of the tensors that an adapter's file has of these methods."""
    return sum(each.numel() * each.element_size() for method in methods for each in method.state_dict().values())


def unfrozen_bytes(model: nn.Module, unfrozen: Iterable[str]) -> int:
    """Bytes of the tensors that an adapter's file has of unfrozen modules and parameters."""
    modules, found = dict(base_modules(model)), 0
    for root in unfrozen:
        tensors = modules[root].state_dict().values() if root in modules else unfrozen_parameters(model, root)
        found += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return found


def _note(layer: nn.Module, parameter: str, method: Method) -> str:
    weight = layer._parameters[parameter]
    assert weight is not None
    if torch.finfo(weight.dtype).bits < 32:
        stored = f"stored in {str(weight.dtype).removeprefix('torch.')}"
        if parameter == "weight" and is_known(type(layer)) and method.all_factors(weight) is not None:
            return f"{stored}: the update runs as a branch; merging rounds it"
        return f"{stored}: small updates round away; keep it in float32"
    if method.rank < method.asked_rank:
        return f"rank {method.asked_rank} would be larger than the layer"
    return method.note(weight)


def collapse(path: str) -> str:
    """``blocks.3.attn`` -> ``blocks.*.attn``, so that equal layers share a row."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text columns; those of numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    numeric = [all(re.fullmatch(r"[\d.,%]*", row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
