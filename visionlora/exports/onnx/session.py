"""A .onnx file of ours in the place of a plain model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.checksums import refuse_damaged
from visionlora.errors import InputError
from visionlora.exports.onnx.graph import import_onnx
from visionlora.exports.onnx.shipped.heads import objects, on_canvas
from visionlora.models.weights import first_line
from visionlora.plain_json import read_json
from visionlora.tasks.about import check_kinds
from visionlora.tasks.models import Trained
from visionlora.tasks.registry import task_of

FILE = "model.onnx"


class DenseOnnx(nn.Module):
    """A model of one tensor, (N, 3, H, W) -> (N, ...), on the CPU."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        (logits,) = self.session.run(None, {"images": images.cpu().numpy()})
        return torch.from_numpy(logits).to(images.device)


class DetectorOnnx(nn.Module):
    """A detector with torchvision's interface in eval mode: one image after the other, on the CPU."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.names = [output.name for output in session.get_outputs()]

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """See the class."""
        found = [self.session.run(None, {"image": image.cpu().numpy()}) for image in images]
        return [
            {name: torch.from_numpy(value) for name, value in zip(self.names, outputs, strict=True)}
            for outputs in found
        ]


class HeadsOnnx(nn.Module):
    """As ``DetectorOnnx``, of a file that ends at the raw heads; images of one shape go through it together."""

    def __init__(self, session: Any, about: dict[str, Any]) -> None:
        super().__init__()
        self.session = session
        self.about = about
        self.names = [output.name for output in session.get_outputs()]

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """See the class."""
        if len({image.shape for image in images}) > 1:
            return [self([image])[0] for image in images]
        canvas = on_canvas([image.cpu().numpy() for image in images], self.about)
        outputs = dict(zip(self.names, self.session.run(None, {"images": canvas}), strict=True))
        found = []
        for index, image in enumerate(images):
            _, height, width = image.shape
            parts = objects(outputs, index, height, width, self.about)
            found.append(dict(zip(("boxes", "labels", "scores"), map(torch.from_numpy, parts), strict=True)))
        return found


def read_onnx(path: Path) -> Trained:
    """An exported file, ready to predict with as a run is.

    Raises:
        InputError: onnxruntime is missing, or the file is damaged or none of ours.
    """
    _, onnxruntime = import_onnx()
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    refuse_damaged(path, ())  # before onnxruntime acts on what it says
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about the graph's making
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would go on turning after each run, and take the cores from torch, which has work in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no public base class
        raise InputError(f"{path}: can't be read as ONNX ({first_line(error)[:200]})") from error
    fields = session.get_modelmeta().custom_metadata_map
    refuse_damaged(path, fields)
    if "cameras" in fields:
        raise InputError(f"{path}: holds a fleet's cameras; use the predict.py beside it, or predict --fleet")
    try:
        name = fields["task"]
        classes, preprocessing, about = (read_json(fields[key]) for key in ("classes", "preprocessing", "about"))
        task = task_of(name, str(path))
        check_kinds(classes, preprocessing, about, path)
        shown = task.read_preprocessing(preprocessing)
        built = task.around(_model(session, task.takes_lists, about).eval(), classes, about)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: does not say its task, classes and preprocessing; give an exported file") from error
    return Trained(name, built, classes, shown, path, about)


def _model(session: Any, takes_lists: bool, about: dict[str, Any]) -> nn.Module:
    """In the place of the plain model."""
    if not takes_lists:
        return DenseOnnx(session)
    return HeadsOnnx(session, about["heads"]) if "heads" in about else DetectorOnnx(session)
