"""An exported model scores on the run's validation images what the run reported, or it is not kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.detection_runs import make_detection_config, make_scenes, of_many_shapes
from helpers.runs import make_config, make_images
from helpers.segmentation_runs import make_masks, make_segmentation_config
from visionlora.errors import InputError
from visionlora.exports import torchvision_folder
from visionlora.exports.export import export
from visionlora.sections import RunConfig
from visionlora.training.run import train


def _with_cameras(annotations: Path) -> None:
    """Every second image is of the gate, the others of the yard."""
    content = json.loads(annotations.read_text())
    for index, image in enumerate(content["images"]):
        image["camera"] = ("gate", "yard")[index % 2]
    annotations.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained run of each task. Not to be changed."""
    root = tmp_path_factory.mktemp("scored")
    scenes = make_scenes(root / "scenes")
    _with_cameras(scenes)
    configs: dict[str, RunConfig] = {
        "classification": make_config(make_images(root / "images"), root / "classification"),
        "detection": make_detection_config(scenes, root / "detection"),
        "detection_of_many_shapes": make_detection_config(
            of_many_shapes(make_scenes(root / "shapes", val=8)), root / "detection_of_many_shapes", batch_size=8
        ),
        "segmentation": make_segmentation_config(make_masks(root / "masks"), root / "segmentation"),
    }
    for config in configs.values():
        train(config, quiet=True)
    return {name: root / name for name in configs}


@pytest.mark.parametrize(
    ("task", "to"),
    [
        ("classification", "timm"),
        ("detection", "onnx"),
        ("detection", "onnx-heads"),
        ("detection", "torchvision"),
        ("detection_of_many_shapes", "onnx"),
        ("detection_of_many_shapes", "torchvision"),
        ("segmentation", "torchvision"),
    ],
)
def test_the_scores_are_the_reports(task: str, to: str, runs: dict[str, Path], tmp_path: Path) -> None:
    report = json.loads((runs[task] / "report.json").read_text())["scores"]
    result = export(runs[task], to, tmp_path / "out", rounds=1)
    assert result.scores is not None
    assert result.scores.whose == "the run's report"
    assert result.scores.exported == pytest.approx(report, abs=1e-3, nan_ok=True)
    card = (tmp_path / "out" / "README.md").read_text()
    name, value = next(iter(result.scores.exported.items()))
    assert f"| {name} | {value:.4f} | {report[name]:.4f} |" in card


def test_cameras_are_scored_by_themselves(runs: dict[str, Path], tmp_path: Path) -> None:
    seen: list[tuple[str, int | None, int]] = []

    def progress(what: str, total: int | None) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def counting() -> Any:
            done: list[int] = []
            yield done.append
            seen.append((what, total, sum(done)))

        return counting()

    result = export(runs["detection"], "torchvision", tmp_path / "out", rounds=1, progress=progress)
    assert result.scores is not None
    assert result.scores.by == "camera"
    assert {name: images for name, (images, _) in result.scores.groups.items()} == {"gate": 2, "yard": 2}
    scored = [("scoring", 4, 4), ("scoring gate", 2, 2), ("scoring yard", 2, 2)]
    assert seen == [("writing model.safetensors", None, 0), *scored, ("timing", None, 0)]
    assert "| camera | images |" in (tmp_path / "out" / "README.md").read_text()
    by_day = export(runs["detection"], "torchvision", tmp_path / "days", rounds=1, by="day").scores
    assert by_day is not None
    assert list(by_day.groups) == ["friday"]
    assert by_day.groups["friday"][1] == by_day.exported


def test_a_field_that_no_image_has_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image has a field 'dya'"):
        export(runs["detection"], "torchvision", tmp_path / "out", rounds=1, by="dya")
    with pytest.raises(InputError, match="a classifier's images have no fields"):
        export(runs["classification"], "timm", tmp_path / "out", rounds=1, by="camera")
    assert not list(tmp_path.iterdir())


def test_scoring_can_be_left_out(runs: dict[str, Path], tmp_path: Path) -> None:
    assert export(runs["segmentation"], "torchvision", tmp_path / "out", rounds=1, score=False).scores is None
    assert "| mIoU |" in (tmp_path / "out" / "README.md").read_text()


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    """The exported segmenter loads, equals the adapted one on the images that are compared, and fails on the others."""
    load = torchvision_folder.load

    class Failing(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model, self.calls = model, 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            logits: torch.Tensor = self.model(images)
            return logits if self.calls <= 4 else -logits

    monkeypatch.setattr(torchvision_folder, "load", lambda *arguments: Failing(load(*arguments)).eval())


def test_other_scores_keep_nothing(runs: dict[str, Path], tmp_path: Path, damaged: None) -> None:
    with pytest.raises(InputError, match=r"scores mIoU .*, not .* on the run's 4 validation images; nothing was kept"):
        export(runs["segmentation"], "torchvision", tmp_path / "out", rounds=1)
    assert not list(tmp_path.iterdir())


def test_a_report_that_is_out_of_date_is_no_fault_of_the_export(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionlora.exports import source

    def older(path: Path) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(path.read_text())
        return {**report, "scores": {name: value / 2 for name, value in report["scores"].items()}}

    monkeypatch.setattr(source, "_report", older)
    scores = export(runs["segmentation"], "torchvision", tmp_path / "out", rounds=1).scores
    assert scores is not None
    assert scores.whose == "adapted"
    assert scores.exported == pytest.approx(scores.against, abs=1e-4)
    assert "the adapted model now" in (tmp_path / "out" / "README.md").read_text()
