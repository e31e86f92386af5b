"""A folder in the layout of timm's hub, for ``timm.create_model("local-dir:FOLDER", pretrained=True)``."""

from pathlib import Path

from timm.data import resolve_data_config
from timm.models import save_for_hf
from torch import Tensor, nn

from visionlora.data.classification.transforms import Preprocessing
from visionlora.errors import InputError
from visionlora.exports.readme_code import run_loader
from visionlora.exports.source import Source
from visionlora.exports.weights import write_weights
from visionlora.files import tensor_errors
from visionlora.tasks.together import together_of
from visionlora.tasks.trained import MODEL

FILE = MODEL


def refuse(source: Source) -> None:
    """Raise InputError for what is no timm classifier."""
    task, library, name = source.trained.task, source.library, source.trained.about["model"]["name"]
    if not isinstance(source.trained.preprocessing, Preprocessing):
        raise InputError(f"--to timm is for classifiers, and {name} is for {task}; take --to torchvision or --to onnx")
    if together_of(source.trained):
        raise InputError(f"--to timm: timm knows no {name} with classes beside its own; take --to torchvision or onnx")
    if library != "timm":
        raise InputError(f"--to timm is for timm's models, and {name} is {library}'s; take --to torchvision")


def write(source: Source, folder: Path, image: Tensor) -> None:
    """model.safetensors and config.json."""
    del image
    trained = source.trained
    pre: Preprocessing = trained.preprocessing
    shown = {
        "input_size": (3, pre.height, pre.width),
        "mean": pre.mean,
        "std": pre.std,
        "interpolation": pre.interpolation,
        "crop_pct": pre.crop_pct,
        "crop_mode": pre.crop_mode,
    }
    with tensor_errors(folder / FILE):
        save_for_hf(
            trained.model,
            str(folder),
            model_config={"label_names": trained.classes},
            safe_serialization=True,
            data_config=shown,
        )
    write_weights(source, folder)


def loader(source: Source, where: str = ".") -> str:
    """Python that makes the plain ``model`` of the folder ``where``."""
    del source
    return f"import timm\nmodel = timm.create_model({f'local-dir:{where}'!r}, pretrained=True).eval()"


def example(source: Source) -> str:
    """Python that goes on from ``loader`` to the name of an image's class."""
    pick = "model.pretrained_cfg['label_names'][logits.argmax()]"
    if source.task.reading(source.trained).get("multilabel"):
        pick = "[model.pretrained_cfg['label_names'][i] for i in (logits[0] > 0).nonzero()[:, 0]]"
    return (
        "from PIL import Image\n"
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n"
        'logits = model(transform(Image.open("image.jpg").convert("RGB"))[None])\n'
        f"print({pick})"
    )


def load(source: Source, folder: Path) -> nn.Module:
    """The model as ``loader`` makes it.

    Raises:
        InputError: the folder does not say the same classes and preprocessing as the run.
    """
    model = run_loader(loader(source, str(folder)))
    told = Preprocessing.from_timm(resolve_data_config({}, model=model))
    if list(model.pretrained_cfg["label_names"]) != source.trained.classes or told != source.trained.preprocessing:
        raise InputError(f"{folder}: timm reads other classes or preprocessing from it than the run's; not exported")
    return model
