"""The formats there are, and what each knows."""

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from visionlora.exports import timm_folder, torchvision_folder
from visionlora.exports.onnx import folder as onnx_folder
from visionlora.exports.onnx import heads_folder as onnx_heads_folder
from visionlora.exports.source import Source


class Format(Protocol):
    """A way to write a merged model: here a module of functions."""

    FILE: str
    """Name of the model's file in the folder."""

    def refuse(self, source: Source) -> None:
        """Raise InputError for a model that can't be written so."""

    def write(self, source: Source, folder: Path, image: Tensor) -> None:
        """Write the folder; ``image`` (3, h, w) is what the model sees of some image."""

    def load(self, source: Source, folder: Path) -> nn.Module:
        """The model as ``loader`` makes it, with the plain model's interface."""

    def loader(self, source: Source, where: str = ".") -> str:
        """Python that makes ``model`` of the folder ``where``, for the README."""

    def example(self, source: Source) -> str:
        """Python that goes on from there to what is in an image."""


FORMATS: dict[str, Format] = {
    "timm": timm_folder,
    "torchvision": torchvision_folder,
    "onnx": onnx_folder,
    "onnx-heads": onnx_heads_folder,
}
"""By ``--to``."""
