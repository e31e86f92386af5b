"""New classes beside those that a base knows: the base's outputs, bit for bit, and adapters'."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from visionlora.adapters.fleet.loading import counts_of
from visionlora.adapters.header import read_file, read_header
from visionlora.adapters.io import load_read
from visionlora.adapters.model import merge
from visionlora.adapters.targets import base_modules, is_under
from visionlora.errors import InputError
from visionlora.models.extended import Extended
from visionlora.models.joined_outputs import JoinLogits


def extend(model: nn.Module, *paths: str | Path, shifts: dict[str, float] | None = None) -> Extended:
    """A classifier of a model's classes and of those of adapters that were trained on it.

    The outputs are (N, old + new): first the model's own logits, bit for bit, then each adapter's in the order given.
    What lies below the first adapted layer is computed once, so adapters of the last layers cost little. What was
    extended before can be extended again, and ``Extended.without`` takes an adapter off. For detectors and segmenters
    give ``Extended`` the merged models and ``JoinDetections`` or ``JoinPixels``.

    Args:
        model: a plain classifier with its head, or an ``Extended`` one; it stays as it is.
        paths: adapters' files, with heads of their own; they are called by the files' names.
        shifts: by these names, what is added to an adapter's logits: see ``fit_shift``. By default what its file says
            (``train.keep_classes=true``), or nothing.

    Raises:
        InputError: a file can't be read, belongs to another base, is none of a classifier's, holds no head, or bears
            the name of one before.
    """
    base, others, join = model, dict[str, nn.Module](), JoinLogits(dict(shifts or {}))
    if isinstance(model, Extended):
        if not isinstance(model.join, JoinLogits):
            raise InputError("only classifiers are extended by an adapter's file; give Extended the merged model")
        base, others = model.base, dict(model.others.items())
        join = JoinLogits({**model.join.shifts, **(shifts or {})})
    for path in map(Path, paths):
        name = path.stem.replace(".", "_")
        if name in others:
            raise InputError(f"{path}: there is a '{name}' already; give the file another name")
        others[name] = _adapted(base, path)
        kept = read_header(path).extra.get("keeps") or {}
        join.shifts.setdefault(name, float(kept.get("rule", {}).get("shift", 0.0)))
    if unknown := [name for name in join.shifts if name not in others]:
        raise InputError(f"shifts are for {unknown}, and there are: {list(others)}")
    return Extended(base, others, join)


@torch.no_grad()
def fit_shift(old: Tensor, new: Tensor, share: float = 0.95) -> float:
    """The least shift of new classes' logits with which they win on so many of their own images.

    Two heads were never trained against each other, so their logits can't be compared as they are. More than this
    shift would only take away from the old classes.

    Args:
        old: the base's logits on validation images of new classes, (N, old).
        new: the adapter's on the same, (N, new).
        share: of these images that a new class shall win, above 0 and at most 1.

    Raises:
        InputError: there is no image, or the share is out of its range.
    """
    if not len(old) or len(old) != len(new):
        raise InputError(f"there are {len(old)} and {len(new)} images; give both logits of the same ones")
    if not 0 < share <= 1:
        raise InputError(f"share is {share!r}; give one above 0 and at most 1")
    margins = (old.amax(1) - new.amax(1)).double().sort().values
    needed = float(margins[max(0, -int(-share * len(margins) // 1) - 1)])
    return needed + 1e-6 * max(1.0, abs(needed))  # the first of equal logits would win, and that is an old class


def _adapted(base: nn.Module, path: Path) -> nn.Module:
    """A merged copy of the base with the adapter of a file, and its head."""
    header, tensors = read_file(path)
    if (task := header.extra.get("task", "classification")) != "classification":
        raise InputError(f"{path}: is of a {task} model; give Extended the merged model")
    other = copy.deepcopy(base)
    linear = {name for name, module in base_modules(other) if isinstance(module, nn.Linear)}
    if not any(key.rpartition(".")[0] in linear and is_under(key, header.unfrozen) for key in tensors):
        raise InputError(f"{path}: holds no linear head of its own (lora.unfreeze), so it has no new classes")
    load_read(other, header, tensors, path, other_classes=True)
    for (module, attribute), value in counts_of(other, "default", path).items():
        setattr(module, attribute, value)
    return merge(other).eval()
