"""Plain weights for models that torchvision builds, and for visionlora's own over timm's backbones."""

from pathlib import Path

from torch import Tensor, nn

from visionlora.errors import InputError
from visionlora.exports.readme_code import loading_code, run_loader
from visionlora.exports.source import Source
from visionlora.exports.weights import write_weights
from visionlora.files import write_json
from visionlora.tasks.trained import MODEL

FILE = MODEL


def refuse(source: Source) -> None:
    """Raise InputError for timm's classifiers, which have a better format."""
    if source.library == "timm":
        name = source.trained.about["model"]["name"]
        raise InputError(f"--to torchvision is not for timm's classifiers, and {name} is one; take --to timm")


def write(source: Source, folder: Path, image: Tensor) -> None:
    """model.safetensors, and config.json: classes, preprocessing, and what the outputs mean."""
    del image
    trained = source.trained
    write_weights(source, folder)
    about = source.public_about()
    config = {
        "task": trained.task,
        "library": source.library,
        "model": {key: value for key, value in about["model"].items() if value is not None},
        "classes": trained.classes,
        "preprocessing": trained.preprocessing.to_dict(),
        **source.task.reading(trained),
    }
    write_json(folder / "config.json", config)


def loader(source: Source, where: str = ".") -> str:
    """Python that makes the plain ``model`` of the folder ``where``."""
    return f"{loading_code(source.trained, Path(where) / FILE)}\nmodel.eval()"


def example(source: Source) -> str:
    """Python that goes on from ``loader`` to what is in an image."""
    return source.task.example_code(source.trained)


def load(source: Source, folder: Path) -> nn.Module:
    """The model as ``loader`` makes it, with the plain model's interface."""
    model: nn.Module = run_loader(loader(source, str(folder)))
    return source.task.as_ours(model) if source.library == "torchvision" else model
