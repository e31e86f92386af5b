"""Merged weights as one safetensors file that says what they are of."""

import json
from pathlib import Path

from visionlora.exports.source import Source
from visionlora.files import write_tensors
from visionlora.training.folder import MODEL


def write_weights(source: Source, folder: Path) -> None:
    """Write model.safetensors with the merged state dict; its header has what `load_trained` asks for."""
    trained = source.trained
    about = {
        "classes": trained.classes,
        "preprocessing": trained.preprocessing.to_dict(),
        "extra": source.public_about(),
    }
    header = {"format": "pt", **{key: json.dumps(value) for key, value in about.items()}}
    # Tied tensors share memory, which the format refuses.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in trained.model.state_dict().items()}
    write_tensors(tensors, folder / MODEL, header)
