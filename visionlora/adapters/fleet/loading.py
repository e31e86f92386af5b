"""Adapters from their files onto one model, be their heads of other sizes than the model's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visionlora.adapters import state
from visionlora.adapters.adaptable import base_modules
from visionlora.adapters.attached import check_name
from visionlora.adapters.header import Header, read_file
from visionlora.adapters.loading import load_read
from visionlora.adapters.model import detach
from visionlora.adapters.paths import join
from visionlora.errors import InputError, did_you_mean

Counts = dict[tuple[nn.Module, str], int]
"""(module, attribute) -> number of classes, or of outputs for them."""

_COUNTED = ("num_classes", "num_columns", "out_features", "out_channels")
"""Attributes in which modules keep it, some for their forward."""


def load_all(model: nn.Module, adapters: Mapping[str, str | Path]) -> tuple[dict[str, Header], dict[str, Counts]]:
    """Attach each file's adapter under its camera's name.

    Returns:
        the files' headers, and camera -> the counts that are others than the base's, whose own are under
        ``state.BASE``.

    Raises:
        InputError: a name can't be one, or a file is damaged, or made on another base; the model is then as it was.
    """
    headers: dict[str, Header] = {}
    counts: dict[str, Counts] = {state.BASE: {}}
    try:
        for camera, file in adapters.items():
            path = Path(file)
            check_name(model, camera)
            headers[camera], tensors = read_file(path)
            load_read(model, headers[camera], tensors, path, camera, other_classes=True)
            counts[camera] = counts_of(model, camera, path)
            counts[state.BASE] |= {at: getattr(*at) for at in counts[camera]}
    except BaseException:
        if headers:
            detach(model)
        raise
    return headers, counts


def check_camera(name: object, known: Mapping[str, Any]) -> None:
    """Raise InputError if the fleet has no such camera."""
    if name not in known:
        raise InputError(
            f"no camera '{name}' in this fleet{did_you_mean(str(name), known)}; there are {', '.join(known)}"
        )


def counts_of(model: nn.Module, camera: str, path: Path) -> Counts:
    """What the modules around tensors of another shape must count for the adapter that was loaded last.

    Raises:
        InputError: a tensor of the file ``path`` has another shape than by another number of classes.
    """
    modules = dict(base_modules(model))
    counts: Counts = {}
    for place, module in modules.items():
        owned = state.owned_of(module)
        base: dict[str, Tensor] = {} if owned is None else owned.values.get(state.BASE, {})
        for name, value in state.values_of(module, camera).items():
            before = base.get(name, value)
            if before.shape == value.shape:
                continue
            if before.shape[1:] != value.shape[1:]:
                raise InputError(
                    f"{path}: '{join(place, name)}' is {tuple(value.shape)} in the file and {tuple(before.shape)} in "
                    f"the model, which is no other number of classes; create the model as it was made"
                )
            counts |= _scaled(modules, place, len(before), len(value))
    return counts


def _scaled(modules: dict[str, nn.Module], path: str, before: int, after: int) -> Counts:
    """The counts of a module and those around it where a tensor of ``before`` rows has ``after``."""
    counts: Counts = {}
    while True:
        for attribute in _COUNTED:
            count = vars(modules[path]).get(attribute)
            if isinstance(count, int) and count > 1 and before % count == 0 and after * count % before == 0:
                counts[modules[path], attribute] = after * count // before
        if not path:
            return counts
        path = path.rpartition(".")[0]
