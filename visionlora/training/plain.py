"""A plain model's weights as one safetensors file that says what `load_trained` asks for."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from visionlora.files import write_atomic, write_tensors


def write_plain(
    model: nn.Module, path: Path, classes: list[str], preprocessing: dict[str, Any], about: dict[str, Any]
) -> None:
    """Write the model's state dict, atomically. Raises OSError if that fails."""
    fields = {"classes": classes, "preprocessing": preprocessing, "extra": about}
    header = {"format": "pt", **{key: json.dumps(value) for key, value in fields.items()}}
    # Tied tensors share memory, which the format refuses.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    write_atomic(path, lambda temporary: write_tensors(tensors, temporary, header))
