"""The classes that a base knows: as a whole model's file of ours states them, or as its weights' makers do."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo

from visionlora.errors import InputError
from visionlora.plain_json import read_json
from visionlora.tensor_files import open_tensors

_ADAPTER = "visionlora-adapter"


@dataclass(frozen=True)
class Stated:
    """What a file says of the whole model in it.

    Attributes:
        classes: names in the order of its outputs.
        about: its settings and whatever else a run writes.
    """

    classes: list[str]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Of the model's section in the config that it was made with."""
        found = self.about.get("model")
        return found if isinstance(found, dict) else {}


def stated(checkpoint: Path | None) -> Stated | None:
    """What a file says, where ``merge`` or ``export`` wrote it; None of any other file of weights.

    Raises:
        InputError: it holds an adapter, or several models, and no base.
    """
    if checkpoint is None or checkpoint.suffix != ".safetensors" or not checkpoint.is_file():
        return None
    try:
        with open_tensors(checkpoint) as file:
            fields: dict[str, str] = file.metadata() or {}
    except InputError:  # who reads the weights says what is wrong with them
        return None
    if fields.get("format") == _ADAPTER:
        raise InputError(f"model.checkpoint {checkpoint}: is an adapter and no base; merge it first: visionlora merge")
    try:
        classes, about = read_json(fields["classes"]), read_json(fields["extra"])
    except (KeyError, InputError):
        return None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or not classes:
        return None
    found = Stated(classes, about if isinstance(about, dict) else {})
    if found.about.get("together"):
        raise InputError(
            f"model.checkpoint {checkpoint}: holds a base with new classes beside it; train on that base, and put the "
            "adapters together: visionlora merge RUN --with OTHER"
        )
    return found


def numbered_classes(outputs: int) -> list[str]:
    """Names for the outputs of weights that state none: ImageNet's where there are 1000, as timm has them."""
    info = ImageNetInfo()
    if outputs != info.num_classes():
        return [f"base class {index}" for index in range(outputs)]
    names = [info.index_to_description(index).split(",")[0] for index in range(outputs)]
    counts = Counter(names)
    return [
        f"{name} ({info.index_to_label_name(index)})" if counts[name] > 1 else name for index, name in enumerate(names)
    ]
