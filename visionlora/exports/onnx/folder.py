"""A single .onnx file, which says itself how to use it, and a script that does."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visionlora.exports.onnx.graph import import_onnx, write_dense, write_detector
from visionlora.exports.onnx.session import FILE, read_onnx
from visionlora.exports.source import Source
from visionlora.tasks.together import DISTILLED, ENTRY


def refuse(source: Source) -> None:
    """Every model may be tried."""
    del source


def write(source: Source, folder: Path, image: Tensor) -> None:
    """model.onnx and predict.py; ``image`` (3, h, w) is what the model sees of some image."""
    trained = source.trained
    if source.task.takes_lists:
        write_detector(trained.model, image, folder / FILE, fields_of(source))
    else:
        # Most models see one size anyway, and windows of attention can keep the exporter at it for hours.
        any_size = source.task.any_size or not has_attention(trained.model)
        write_dense(trained.model, image[None], folder / FILE, fields_of(source), any_size)
    write_script(folder, "predict.py")


def has_attention(model: nn.Module) -> bool:
    """Whether something in the model has heads of attention, as timm and torch name them."""
    return any(hasattr(module, "num_heads") for module in model.modules())


def fields_of(source: Source) -> dict[str, Any]:
    """What one must know of the model: field -> value, as ``read_onnx`` and predict.py read it."""
    trained, about = source.trained, source.public_about()
    more = {key: about[key] for key in (ENTRY, DISTILLED) if key in about}
    return {
        "task": trained.task,
        "classes": trained.classes,
        "preprocessing": trained.preprocessing.to_dict(),
        "about": {**source.task.reading(trained), **more, "model": about["model"]},
    }


def write_script(folder: Path, name: str) -> None:
    """A module of ``shipped`` as a script of the exported folder: what is tested here is what runs there."""
    text = (Path(__file__).parent / "shipped" / name).read_text(encoding="utf-8")
    (folder / name).write_text(text, encoding="utf-8")


def loader(source: Source, where: str = ".") -> str:
    """Python that makes ``model`` of the folder ``where``, with numpy, pillow and onnxruntime alone."""
    del source
    return f"from predict import Model\nmodel = Model({str(Path(where) / FILE)!r})"


def example(source: Source) -> str:
    """Python that goes on from ``loader`` to what is in an image."""
    return f'found = model("image.jpg")  # {source.task.answer}\nprint(found)'


def load(source: Source, folder: Path) -> nn.Module:
    """The file in onnxruntime, with the plain model's interface."""
    del source
    import_onnx()
    model: nn.Module = read_onnx(folder / FILE).model
    return model
