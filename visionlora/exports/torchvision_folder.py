"""Plain weights for models that torchvision builds, and for visionlora's own over timm's backbones."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.errors import InputError
from visionlora.exports.kinds import KINDS
from visionlora.exports.loaders import run_loader
from visionlora.exports.source import Source
from visionlora.exports.torchvision_examples import example
from visionlora.exports.weights import write_weights
from visionlora.files import write_json
from visionlora.models.classifier import creation_code
from visionlora.models.torchvision_detectors import PREFIX
from visionlora.training.folder import MODEL

FILE = MODEL
__all__ = ["FILE", "example", "load", "loader", "refuse", "write"]


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
        **KINDS[trained.task].describe(about, trained.built, trained.classes),
    }
    write_json(folder / "config.json", config)


def loader(source: Source, where: str = ".") -> str:
    """Python that makes the plain ``model`` of the folder ``where``."""
    if source.library == "visionlora":
        return (
            "from pathlib import Path\nfrom visionlora.training.trained import load_trained\n"
            f"model = load_trained(Path({where!r})).model"
        )
    file = str(Path(where) / FILE)
    return (
        f"{_creation(source)}\nfrom safetensors.torch import load_file\nmodel.load_state_dict(load_file({file!r}))\n"
        "model.eval()"
    )


def load(source: Source, folder: Path) -> nn.Module:
    """The model as `loader` makes it; of a segmenter, the logits alone."""
    model: nn.Module = run_loader(loader(source, str(folder)))
    if source.trained.task == "segmentation" and source.library == "torchvision":
        return _Out(model)
    return model


class _Out(nn.Module):
    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.segmenter(images)["out"]
        return logits


def _creation(source: Source) -> str:
    """Python that creates the same plain model, with torchvision alone."""
    trained = source.trained
    name = trained.about["model"]["name"].removeprefix(PREFIX)
    pre = trained.preprocessing
    if trained.task == "classification":
        return creation_code(trained.about["model"]["name"], len(trained.classes), (pre.height, pre.width))
    options: dict[str, Any] = {"num_classes": len(trained.classes)}
    if trained.task == "detection":
        options = _detector_options(trained.built)
    arguments = ", ".join(f"{key}={value!r}" for key, value in options.items())
    code = (
        "import torchvision\n"
        f"model = torchvision.models.get_model({name!r}, weights=None, weights_backbone=None, {arguments})"
    )
    if eps := _unusual_eps(trained.model):
        # torchvision builds its pretrained detectors so, and only those.
        code += (
            "\nimport torch\nfor module in model.modules():\n    if isinstance(module, torch.nn.BatchNorm2d):"
            f"\n        module.eps = {eps!r}"
        )
    return code


def _detector_options(detector: Any) -> dict[str, Any]:
    transform = detector.model.transform
    # With the gaps of COCO's own numbers too, the last label is the last output.
    options: dict[str, Any] = {"num_classes": max(detector.model_labels) + 1}
    if transform.fixed_size is None:
        options |= {"min_size": transform.min_size[-1], "max_size": transform.max_size}
    return {**options, "image_mean": list(transform.image_mean), "image_std": list(transform.image_std)}


def _unusual_eps(model: nn.Module) -> float | None:
    found = {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    tiny = torch.finfo(torch.float32).tiny
    return tiny if tiny in found else None
