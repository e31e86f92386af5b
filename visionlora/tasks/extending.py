"""New classes beside those that a base knows: the base's outputs, bit for bit, and adapters'."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from visionlora.adapters.adaptable import base_modules
from visionlora.adapters.fingerprint import has_fingerprint
from visionlora.adapters.fleet.loading import counts_of
from visionlora.adapters.header import read_file, read_header
from visionlora.adapters.loading import load_read
from visionlora.adapters.model import merge
from visionlora.adapters.patterns import is_under
from visionlora.errors import InputError, some
from visionlora.models.extended import Extended
from visionlora.models.joined_outputs import JoinLogits, Likeness, roots
from visionlora.tasks.about import Keeps, Rule, keeps_of

_LEAST = 1e-30
"""A likeness above the least float32."""


def extend(model: nn.Module, *paths: str | Path, shifts: dict[str, float] | None = None) -> Extended:
    """A classifier of a model's classes and of those of adapters that were trained on it.

    The outputs are (N, old + new): first the model's own logits, bit for bit, then each adapter's in the order given.
    What lies below the first adapted layer is computed once, so adapters of the last layers cost little. What was
    extended before can be extended again, and ``Extended.without`` takes an adapter off. For detectors and segmenters
    give ``Extended`` the merged models and ``JoinDetections`` or ``JoinPixels``.

    Args:
        model: a plain classifier with its head, or an ``Extended`` one; it stays as it is.
        paths: adapters' files, with heads of their own; they are called by the files' names.
        shifts: by these names, what is added to an adapter's logits: see ``fit_shift``. By default the rule that its
            file says (``train.keep_classes=true``), or nothing.

    Raises:
        InputError: a file can't be read, belongs to another base, is none of a classifier's, holds no head, or bears
            the name of one before.
    """
    base, others, join = model, dict[str, nn.Module](), JoinLogits(dict(shifts or {}))
    if isinstance(model, Extended):
        if not isinstance(model.join, JoinLogits):
            raise InputError("only classifiers are extended by an adapter's file; give Extended the merged model")
        base, others = model.base, dict(model.others.items())
        join = JoinLogits({**model.join.shifts, **(shifts or {})}, likeness=dict(model.join.likeness))
    for path in map(Path, paths):
        name = path.stem.replace(".", "_")
        if name in others:
            raise InputError(f"{path}: there is a '{name}' already; give the file another name")
        others[name] = _adapted(base, path)
        if name not in join.shifts:
            rule = _rule(path, base)
            join.shifts[name] = rule.shift
            join.likeness.update(likeness_of({name: rule}))
    if unknown := [name for name in join.shifts if name not in others]:
        raise InputError(f"shifts are for {unknown}, and there are: {list(others)}")
    return Extended(base, others, join)


def likeness_of(rules: Mapping[str, Rule]) -> dict[str, Likeness]:
    """By name, of those rules that have one."""
    return {
        name: Likeness(rule.means, rule.least)
        for name, rule in rules.items()
        if rule.means is not None and rule.least is not None
    }


@torch.no_grad()
def fit_rule(old: Tensor, new: Tensor, share: float = 0.98) -> Rule:
    """By which new classes win on so many of their own images, and on few others.

    Two heads were never trained against each other, and images of the old classes are not at hand. A new class wins
    where its own logit, shifted, is above the old ones, and where the base sees what it sees in images of new classes
    (``Likeness``). Each of the two leaves out as many as together may be lost. For the second an image is compared with
    the others, as one that comes later is: where these are all unlike each other, it leaves out next to nothing.

    Args:
        old: the base's logits on validation images of new classes, (N, old).
        new: the adapter's on the same, (N, new).
        share: of these images that a new class shall win, above 0 and at most 1.

    Raises:
        InputError: there is no image, or the share is out of its range.
    """
    _refuse(old, new, share)
    seen = roots(old.double())
    means = [float(f"{mean:.4g}") for mean in seen.mean(dim=0).tolist()]
    others = (seen.sum(dim=0) - seen) / max(1, len(seen) - 1)
    likeness, margins = (seen * others).sum(dim=1), _margins(old, new)
    lost, unsure, unlike = _lost(share, len(old)), margins.argsort().tolist(), likeness.argsort().tolist()
    each = next(many for many in range(lost, -1, -1) if len({*unsure[:many], *unlike[:many]}) <= lost)
    least = float(likeness.sort().values[each]) * (1 - 1e-6)  # of equal logits the first would win, an old class
    return Rule(shift=_shift(margins, each), means=means, least=min(1.0, max(least, _LEAST)))


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
    _refuse(old, new, share)
    return _shift(_margins(old, new), _lost(share, len(old)))


def _margins(old: Tensor, new: Tensor) -> Tensor:
    """By how much the likeliest new class is above the likeliest old one, (N,)."""
    return (new.amax(1) - old.amax(1)).double()


def _shift(margins: Tensor, lost: int) -> float:
    """The least with which all but so many win."""
    needed = -float(margins.sort().values[lost])
    return needed + 1e-6 * max(1.0, abs(needed))  # the first of equal logits would win, and that is an old class


def _lost(share: float, images: int) -> int:
    """How many of the images need not be won."""
    return min(images - 1, int((1 - share) * images + 1e-9))


def _refuse(old: Tensor, new: Tensor, share: float) -> None:
    if not len(old) or len(old) != len(new):
        raise InputError(f"there are {len(old)} and {len(new)} images; give both logits of the same ones")
    if not 0 < share <= 1:
        raise InputError(f"share is {share!r}; give one above 0 and at most 1")


def other_head(base: nn.Module, keeps: Keeps) -> list[str]:
    """Names of the tensors of a base's head that are not those that an adapter was trained beside."""
    found = base.state_dict()
    return [key for key, digest in keeps.head.items() if key not in found or not has_fingerprint(found[key], digest)]


def _rule(path: Path, base: nn.Module) -> Rule:
    """What an adapter's file says of its answers and the base's; nothing in one that was trained alone."""
    try:
        keeps = keeps_of(read_header(path).extra)
    except ValidationError as error:
        raise InputError(f"{path}: what it says of its base's classes is damaged; save it again") from error
    if keeps is None:
        return Rule()
    if other := other_head(base, keeps):
        raise InputError(
            f"{path}: its base has another head than when it was trained ({some(other, 2)} differ), so its rule does "
            "not hold; give shifts of your own"
        )
    return keeps.rule


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
