"""Merged weights in an exported folder."""

from pathlib import Path

from visionlora.checksums import config_field
from visionlora.exports.source import Source
from visionlora.tasks.trained import MODEL, write_plain


def write_weights(source: Source, folder: Path) -> None:
    """Write model.safetensors with the merged state dict; its header names no folder of this machine, and the hash of a
    config.json that is there.
    """
    trained, about = source.trained, source.public_about()
    shown, more = trained.preprocessing.to_dict(), config_field(folder)
    write_plain(trained.model, folder / MODEL, trained.classes, shown, about, more)
