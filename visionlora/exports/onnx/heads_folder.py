"""As ``folder``, of a detector up to its raw heads: for many images at once, and runtimes without suppression."""

from pathlib import Path

from torch import Tensor

from visionlora.errors import InputError
from visionlora.exports.onnx.folder import FILE, example, fields_of, load, loader, write_script
from visionlora.exports.onnx.heads import is_one_stage, write_heads
from visionlora.exports.source import Source
from visionlora.tasks.together import together_of

__all__ = ["FILE", "example", "load", "loader", "refuse", "write"]


def refuse(source: Source) -> None:
    """Raise InputError for what has no such heads."""
    task, name = source.trained.task, source.trained.about["model"]["name"]
    if not source.task.takes_lists:
        raise InputError(f"--to onnx-heads is for detectors, and {name} is for {task}; take --to onnx")
    if together_of(source.trained):
        raise InputError(f"--to onnx-heads is for one {name} alone, and its base answers beside it; take --to onnx")
    if not is_one_stage(source.trained.model):
        raise InputError(
            f"--to onnx-heads is for detectors of one stage (RetinaNet, FCOS, SSD), and {name} has two; take --to onnx"
        )


def write(source: Source, folder: Path, image: Tensor) -> None:
    """model.onnx, predict.py and heads.py; ``image`` (3, h, w) is what the model sees of some image."""
    write_heads(source.trained.model, image, folder / FILE, fields_of(source))
    write_script(folder, "predict.py")
    write_script(folder, "heads.py")
