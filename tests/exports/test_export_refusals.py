"""Bad input ends in one line before the work, and a failure leaves nothing behind."""

import json
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import visionlora as vl
from helpers.tiny_models import MODELS, make_adapter, write_image
from visionlora.errors import InputError
from visionlora.exports import export as module
from visionlora.exports import timm_folder
from visionlora.exports.export import export
from visionlora.exports.onnx import graph as onnx_graph
from visionlora.exports.opening import open_trained
from visionlora.exports.result import Exported
from visionlora.files import _umask
from visionlora.tasks.detection.task import Detection

Adapter = Callable[[str], Path]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal must come before anything is written."""

    def fail(*_arguments: Any) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(module, "write_checked", fail)


@pytest.mark.parametrize(
    ("name", "to", "message"),
    [
        ("resnet", "onxx", r"unknown format \(did you mean 'onnx'\?\); there are timm, torchvision, onnx"),
        ("resnet", "torchvision", "test_resnet is one; take --to timm"),
        ("shufflenet", "timm", "shufflenet_v2_x0_5 is torchvision's; take --to torchvision"),
        ("fcos", "timm", "fcos is for detection; take --to torchvision or --to onnx"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(
    name: str, to: str, message: str, adapter: Adapter, tmp_path: Path, no_work: None
) -> None:
    with pytest.raises(InputError, match=message):
        export(adapter(name), to, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_there_is_refused(adapter: Adapter, tmp_path: Path, no_work: None) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="full: is not empty"):
        export(adapter("resnet"), "timm", tmp_path / "full")
    with pytest.raises(InputError, match="notes.txt is a file; give a folder"):
        export(adapter("resnet"), "timm", tmp_path / "full" / "notes.txt" / "out")
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_a_run_is_not_written_into(adapter: Adapter, tmp_path: Path, no_work: None) -> None:
    shutil.copytree(adapter("resnet").parent, tmp_path / "run")
    with pytest.raises(InputError, match="lies in the run"):
        export(tmp_path / "run", "timm", tmp_path / "run" / "exported")


def test_a_base_that_is_gone_can_be_given(images: Path, tmp_path: Path) -> None:
    mine = make_adapter(tmp_path / "mine", MODELS["resnet"])
    file = shutil.copy(mine, tmp_path / "alone.safetensors")
    moved = (mine.parent / "base.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(InputError, match="say where with --checkpoint"):
        export(file, "timm", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = export(file, "timm", tmp_path / "out", [images], checkpoint=moved, rounds=1)
    assert result.difference <= 1e-4


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_extra_is_named(
    package: str, adapter: Adapter, tmp_path: Path, no_work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install visionlora\[onnx\]") as caught:
        export(adapter("resnet"), "onnx", tmp_path / "out")
    assert package in str(caught.value)


def test_an_operation_that_onnx_lacks_is_one_line(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x[:, 0]).real

    fields = {"task": "classification", "classes": [], "preprocessing": {}, "about": {}}
    with pytest.raises(InputError, match="can't export this model to ONNX") as caught:
        onnx_graph.write_dense(Odd().eval(), torch.randn(1, 3, 8, 8), tmp_path / "model.onnx", fields)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_failed_check_keeps_nothing(
    adapter: Adapter, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = timm_folder.load

    def damaged(*arguments: Any) -> torch.nn.Module:
        model = load(*arguments)
        with torch.no_grad():
            model.fc.bias[0] += 1e-2
        return model

    monkeypatch.setattr(timm_folder, "load", damaged)
    with pytest.raises(InputError, match=r"differs from the adapted one by .* on 12 logits of 4 given images"):
        export(adapter("resnet"), "timm", tmp_path / "deep" / "out", [images], rounds=1)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(
    adapter: Adapter, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in adapter("resnet").parent.iterdir()}
    write = Path.write_text

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        if path.name == "README.md":
            raise OSError(28, "No space left on device", str(path))
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        export(adapter("resnet"), "timm", tmp_path / "deep" / "out", [images], rounds=1)
    assert not list(tmp_path.iterdir())
    assert {path: path.read_bytes() for path in adapter("resnet").parent.iterdir()} == before


@pytest.mark.parametrize(("name", "to"), [("resnet", "timm"), ("shufflenet", "torchvision"), ("resnet", "onnx")])
def test_a_disk_that_is_full_half_way_is_an_os_error_that_names_the_file(
    name: str, to: str, adapter: Adapter, images: Path, tmp_path: Path
) -> None:
    file = adapter(name)
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a real one, from the system
    try:
        with pytest.raises(OSError, match="(?i)file too large") as caught:
            export(file, to, tmp_path / "deep" / "out", [images], rounds=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert "out" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_everyone_may_read_what_was_exported(exported: Callable[[str, str], Exported]) -> None:
    for path in exported("resnet", "timm").out.rglob("*"):
        assert path.stat().st_mode & 0o444 == 0o444 & ~_umask(), path


def test_images_must_be_there(adapter: Adapter, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no image"):
        export(adapter("resnet"), "timm", tmp_path / "out", [tmp_path / "empty"])
    with pytest.raises(InputError, match="no such file"):
        export(adapter("resnet"), "timm", tmp_path / "out", [tmp_path / "missing.png"])
    assert not (tmp_path / "out").exists()


def test_without_images_they_are_generated(adapter: Adapter, tmp_path: Path) -> None:
    result = vl.export(adapter("resnet"), "timm", tmp_path / "out", rounds=1)
    assert "8 generated images (the run's settings are not at hand)" in result.compared


def test_a_detector_that_finds_nothing_is_not_called_checked(
    adapter: Adapter, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Detection.run

    def nothing(task: Detection, model: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: value[:0] for name, value in run(task, model, image).items()}

    monkeypatch.setattr(Detection, "run", nothing)
    with pytest.raises(InputError, match="finds nothing to compare on 4 given images; give images with objects"):
        export(adapter("fcos"), "torchvision", tmp_path / "out", [images])


def test_a_damaged_onnx_file_is_one_line(exported: Callable[[str, str], Exported], tmp_path: Path) -> None:
    content = (exported("resnet", "onnx").out / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"model.onnx: can't be read as ONNX"):
        open_trained(tmp_path)
    onnx, _ = onnx_graph.import_onnx()
    graph = onnx.load_from_string(content)
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="does not say its task"):
        open_trained(tmp_path / "model.onnx")


def test_other_weights_are_no_export(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({}))
    write_image(tmp_path / "0.png")
    with pytest.raises(InputError, match="holds weights, but not what a run writes"):
        open_trained(tmp_path)
