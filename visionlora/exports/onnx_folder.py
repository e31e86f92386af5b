"""A single .onnx file, which says itself how to use it, and a script that does."""

from pathlib import Path

from torch import Tensor, nn

from visionlora.exports.kinds import KINDS
from visionlora.exports.onnx_graph import import_onnx, write_dense, write_detector
from visionlora.exports.onnx_model import FILE, read_onnx
from visionlora.exports.source import Source

SCRIPT = "predict.py"


def refuse(source: Source) -> None:
    """Every model may be tried."""
    del source


def write(source: Source, folder: Path, image: Tensor) -> None:
    """model.onnx and predict.py; ``image`` (3, h, w) is what the model sees of some image."""
    trained = source.trained
    kind, pre = KINDS[trained.task], trained.preprocessing
    about = source.public_about()
    fields = {
        "task": trained.task,
        "classes": trained.classes,
        "preprocessing": pre.to_dict(),
        "about": {**kind.describe(about, trained.built, trained.classes), "model": about["model"]},
    }
    if trained.task == "detection":
        write_detector(trained.model, image, folder / FILE, fields)
    else:
        write_dense(trained.model, image[None], folder / FILE, fields)
    script = Path(__file__).with_name("standalone.py").read_text(encoding="utf-8")
    (folder / SCRIPT).write_text(script, encoding="utf-8")


def loader(source: Source, where: str = ".") -> str:
    """Python that makes ``model`` of the folder ``where``, with numpy, pillow and onnxruntime alone."""
    del source
    return f"from predict import Model\nmodel = Model({str(Path(where) / FILE)!r})"


def example(source: Source) -> str:
    """Python that goes on from `loader` to what is in an image."""
    what = {
        "classification": "{class: probability}, the likeliest first",
        "detection": "[{class, score, box}, ...], boxes in pixels of the image",
        "segmentation": "(H, W), each pixel's class: an index into model.classes",
    }
    return f'found = model("image.jpg")  # {what[source.trained.task]}\nprint(found)'


def load(source: Source, folder: Path) -> nn.Module:
    """The file in onnxruntime, with the plain model's interface."""
    del source
    import_onnx()
    model: nn.Module = read_onnx(folder / FILE).model
    return model
