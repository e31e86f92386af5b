"""Models as ONNX files: the graph, checked, without traces of this machine, and with what one must know of it."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.checksums import BLANK, FIELD, stamp
from visionlora.errors import InputError
from visionlora.exports.onnx.resize import antialiased_resize
from visionlora.exports.onnx.same import same_padding
from visionlora.models.weights import first_line

OPSET = 20


def import_onnx() -> tuple[ModuleType, ModuleType]:
    """onnx and onnxruntime, or an ``InputError`` that says how to install them (and onnxscript, for torch)."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX needs {error.name}: pip install visionlora[onnx]") from error
    return onnx, onnxruntime


def write_dense(model: nn.Module, example: Tensor, path: Path, fields: dict[str, Any], any_size: bool = True) -> None:
    """Write a classifier or segmenter: ``images`` (N, 3, H, W) -> ``logits``, for any N, and any H and W if it can.

    Args:
        model: plain, in eval mode, on the CPU.
        example: (1, 3, H, W).
        path: of the file.
        fields: what one must know of it; ``dynamic_size`` is added.
        any_size: try to leave H and W open.

    Raises:
        InputError: it can't be exported.
    """
    graph = _graph_of_any_size(model, example, path) if any_size else None
    dynamic_size = graph is not None
    if graph is None:
        graph = _dense_graph(model, example, path, dynamic_size)
    _finish(graph, path, {**fields, "about": {**fields["about"], "dynamic_size": dynamic_size}})


def write_banked(model: nn.Module, example: Tensor, path: Path, fields: dict[str, Any]) -> None:
    """Write a fleet's classifier: ``images`` (N, 3, H, W) and ``camera`` (N,) int64 -> ``logits``, for any N.

    Args:
        model: of ``onnx.bank``, on the CPU.
        example: (1, 3, H, W).
        path: of the file.
        fields: what one must know of it.

    Raises:
        InputError: it can't be exported.
    """
    batch = torch.export.Dim("batch")
    inputs = {"images": _two_of(example), "camera": torch.zeros(2, dtype=torch.int64)}
    _finish(_logits_graph(model, inputs, [{0: batch}, {0: batch}], path), path, fields)


def write_detector(model: nn.Module, example: Tensor, path: Path, fields: dict[str, Any]) -> None:
    """Write a detector: ``image`` (3, H, W) in 0 to 1 -> ``boxes``, ``labels``, ``scores``, maybe ``masks``.

    Resizing, normalisation and non-maximum suppression are in the graph. One image at a time, of any size.
    torch's newer exporter fails on torchvision's detectors (torch 2.15), so this is the older one.

    Args:
        model: plain, in eval mode, on the CPU.
        example: (3, H, W).
        path: of the file.
        fields: what one must know of it.

    Raises:
        InputError: it can't be exported.
    """
    names = ["boxes", "labels", "scores", *(["masks"] if fields["about"]["masks"] else [])]
    axes = {"image": {1: "height", 2: "width"}, **{name: {0: "detections"} for name in names}}
    write_traced(_OneImage(model, names), example, path, fields, axes)


def write_traced(
    model: nn.Module, example: Tensor, path: Path, fields: dict[str, Any], axes: dict[str, dict[int, str]]
) -> None:
    """Write by torch's older exporter, which follows the example through the model.

    Args:
        model: of one tensor, to a tuple of them.
        example: that tensor.
        path: of the file.
        fields: what one must know of it.
        axes: of the input, and in their order of the outputs, the names of those that may have any length.

    Raises:
        InputError: it can't be exported.
    """
    first, *names = axes
    with _quietly(), antialiased_resize():
        torch.onnx.export(
            model.eval(),
            (example,),
            str(path),
            dynamo=False,
            opset_version=18,
            input_names=[first],
            output_names=names,
            dynamic_axes=axes,
        )
    onnx, _ = import_onnx()
    _finish(onnx.load(path), path, fields)


def batchnorms_after_convs(graph: Any) -> int:
    """How many BatchNormalizations of an ``onnx.ModelProto`` could have been folded into the convolution before."""
    made_by = {output: node for node in graph.graph.node for output in node.output}
    norms = [node for node in graph.graph.node if node.op_type == "BatchNormalization"]
    before = [made_by.get(node.input[0]) for node in norms]
    return sum(node is not None and node.op_type.startswith("Conv") for node in before)


class _OneImage(nn.Module):
    """(3, H, W) -> a tuple in the place of a list of dicts."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.model([image])[0]
        return tuple(found[name] for name in self.names)


def _graph_of_any_size(model: nn.Module, example: Tensor, path: Path) -> Any | None:
    """The graph with H and W left open; None if the model takes its own size only, or the graph can't follow it."""
    if (elsewhere := _at_another_size(model, example)) is None:
        return None
    try:
        graph = _dense_graph(model, example, path, dynamic_size=True)
    except InputError:
        return None
    return graph if _gives(path, *elsewhere) else None


def _dense_graph(model: nn.Module, example: Tensor, path: Path, dynamic_size: bool) -> Any:
    dynamic = torch.export.Dim.DYNAMIC
    axes = {0: dynamic, 2: dynamic, 3: dynamic} if dynamic_size else {0: dynamic}
    return _logits_graph(model, {"images": _two_of(example)}, [axes], path)


def _two_of(example: Tensor) -> Tensor:
    """A batch of 1 would be taken for a constant."""
    return example.repeat(2, 1, 1, 1)


def _logits_graph(model: nn.Module, inputs: dict[str, Tensor], axes: list[dict[int, Any]], path: Path) -> Any:
    """A model that answers logits, written to ``path`` and read again; ``axes`` of each input that may vary."""
    with _quietly(), _plain_attention(model), same_padding(model) as translations:
        program = torch.onnx.export(
            model,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes=tuple(axes),
            custom_translation_table=translations,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        program.save(str(path))
    onnx, _ = import_onnx()
    return onnx.load(path)


@contextmanager
def _plain_attention(model: nn.Module) -> Iterator[None]:
    """timm's attention as products and a softmax: the exporter fails on fused ones of five axes (Hiera, MaxViT)."""
    fused: list[Any] = [module for module in model.modules() if getattr(module, "fused_attn", False) is True]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True


@torch.no_grad()
def _at_another_size(model: nn.Module, example: Tensor) -> tuple[Tensor, Tensor] | None:
    """The example at another size and shape, and the model's answer; None if the model takes its own size only."""
    height, width = example.shape[2:]
    other = torch.nn.functional.interpolate(example, (height + 32, width + 64), mode="bilinear")
    try:
        return other, model(other)
    except (RuntimeError, AssertionError, ValueError):
        return None


def _gives(path: Path, images: Tensor, expected: Tensor) -> bool:
    """Whether the graph answers so."""
    _, onnxruntime = import_onnx()
    try:
        (found,) = onnxruntime.InferenceSession(str(path)).run(None, {"images": images.numpy()})
    except Exception:  # onnxruntime's errors have no public base class
        return False
    return found.shape == tuple(expected.shape) and bool(
        torch.allclose(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-3)
    )


def _finish(graph: Any, path: Path, fields: dict[str, Any]) -> None:
    """Name the axes and add the fields, leave out what the exporter says of this machine's files, and check."""
    onnx, _ = import_onnx()
    for value in graph.graph.input:
        if len(value.type.tensor_type.shape.dim) == 4:
            _name_axes(value, ("batch", None, "height", "width"))
    _strip(graph.graph)
    for function in graph.functions:
        _strip(function)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
    onnx.helper.set_model_props(graph, {**texts, FIELD: BLANK})
    graph.doc_string = ""
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    stamp(path)


def _name_axes(value: Any, names: tuple[str | None, ...]) -> None:
    for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
        if axis.dim_param and name:
            axis.dim_param = name


def _strip(graph: Any) -> None:
    del graph.metadata_props[:]
    for value in (*getattr(graph, "input", ()), *getattr(graph, "output", ()), *graph.value_info):
        if not isinstance(value, str):
            del value.metadata_props[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _strip(inner)


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter's pages of trace become one line."""
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (InputError, OSError):
        raise
    except Exception as error:  # the exporters raise almost anything
        reason = _reason(error)
        raise InputError(f"torch can't export this model to ONNX ({reason}); take another format") from error


def _reason(error: BaseException) -> str:
    """The innermost error's first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"[:300]
