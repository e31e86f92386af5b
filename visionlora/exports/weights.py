"""Merged weights in an exported folder."""

from pathlib import Path

from visionlora.exports.source import Source
from visionlora.tasks.trained import MODEL, write_plain


def write_weights(source: Source, folder: Path) -> None:
    """Write model.safetensors with the merged state dict; its header names no folder of this machine."""
    trained = source.trained
    write_plain(trained.model, folder / MODEL, trained.classes, trained.preprocessing.to_dict(), source.public_about())
