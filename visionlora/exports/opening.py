"""A model to predict with: of a run, or exported."""

from pathlib import Path

from visionlora.exports.onnx.session import FILE, read_onnx
from visionlora.tasks.models import Trained
from visionlora.tasks.trained import load_trained


def open_trained(path: Path, checkpoint: Path | None = None, download: bool = False) -> Trained:
    """Load a run's or adapter's model, or an exported folder or file.

    A timm or torchvision folder is read as the run of a fully trained model: its file says the same things.

    ``download`` is ``load_trained``'s.

    Raises:
        InputError: there is nothing to load, it is damaged, or the base is not the one it was trained on.
    """
    file = path / FILE if path.is_dir() else path
    if file.suffix == ".onnx" and file.is_file():
        return read_onnx(file)
    return load_trained(path, checkpoint, download=download)
