"""What is retained of a base, against plain loops over models that are put together by hand."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import visionlora as vl
from helpers.squares import write_squares
from visionlora.cli.main import main
from visionlora.config import check_config, load_config
from visionlora.data.classification.transforms import eval_transform
from visionlora.data.images import read_image
from visionlora.errors import InputError
from visionlora.studies.forgetting import Point, Retained, merged_at, retained, write_scaled
from visionlora.tasks.classification.task import TASK, Classification
from visionlora.tasks.trained import load_trained
from visionlora.training.run import train

OWN = 5
"""Classes of the base's head."""
SCALES = (0.0, 0.5, 1.0)
"""Fewer than people get."""


@pytest.fixture(autouse=True, scope="module")
def _few_scales() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("visionlora.studies.forgetting.SCALES", SCALES)
        yield


def base(outputs: int) -> nn.Module:
    """With the same backbone whatever the head."""
    torch.manual_seed(3)
    model: nn.Module = timm.create_model("test_vit", num_classes=0, img_size=32)
    model.reset_classifier(outputs)  # type: ignore[operator]
    nn.init.normal_(model.head.weight)  # type: ignore[union-attr, arg-type]
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over squares, with the weights of bases beside it. Not to be changed."""
    root = tmp_path_factory.mktemp("forgetting")
    write_squares(root / "train", 6, seed=0)
    write_squares(root / "val", 3, seed=1)
    for outputs in (OWN, 1000):
        save_file(base(outputs).state_dict(), root / f"{outputs}.safetensors")
    generator = np.random.default_rng(0)
    for index in range(30):
        for folder in (root / "known" / f"class{index % OWN}", root / "any"):
            folder.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (2, 2, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classification, "figures", lambda *_given: {})
        train(
            check_config(
                {
                    "model": {"name": "test_vit", "checkpoint": str(root / f"{OWN}.safetensors"), "img_size": 32},
                    "data": {"root": str(root), "train": "train", "val": "val", "augment": "none", "workers": 0},
                    "lora": {"rank": 2},
                    "train": {"epochs": 2, "batch_size": 6, "lr": 0.05, "head_lr": 0.05, "warmup_epochs": 0},
                    "out": str(root / "run"),
                }
            ),
            quiet=True,
        )
    return root / "run"


def found(run: Path, images: str, outputs: int = OWN) -> Retained:
    trained = load_trained(run)
    config = load_config(run / "config.yaml")
    target = TASK.images(config, "", trained.classes).data  # type: ignore[arg-type]
    checkpoint = run.parent / f"{outputs}.safetensors"
    return retained(trained.path, trained, target, run.parent / images, config, torch.device("cpu"), checkpoint)


@torch.no_grad()
def answers(model: nn.Module, images: list[Path], run: Path) -> list[int]:
    transform = eval_transform(load_trained(run).preprocessing)
    model.eval()
    return [int(model(transform(read_image(path))[None]).argmax()) for path in images]


def scaled_base(run: Path, outputs: int, scale: float) -> nn.Module:
    """The base with its own head, and so much of the adapter, by the public functions."""
    model = base(outputs)
    vl.load_adapter(model, run / "adapter.safetensors", heads=False)
    return vl.merge(model, scale=scale)


@pytest.fixture(scope="module")
def by_agreement(run: Path) -> Retained:
    return found(run, "any", outputs=1000)


def test_labels_are_scored_by_the_bases_own_head(run: Path) -> None:
    curve = found(run, "known")
    images = sorted((run.parent / "known").rglob("*.png"))
    truth = [int(path.parent.name[-1]) for path in images]
    for point in curve.points:
        said = answers(scaled_base(run, OWN, point.scale), images, run)
        assert point.source == pytest.approx(np.mean(np.equal(said, truth)))
    assert (curve.labelled, curve.images) == (True, 30)
    assert curve.points[0].source == pytest.approx(np.mean(np.equal(answers(base(OWN), images, run), truth)))


def test_without_labels_it_is_agreement_with_the_base(run: Path, by_agreement: Retained) -> None:
    curve = by_agreement
    images = sorted((run.parent / "any").glob("*.png"))
    before = answers(base(1000), images, run)
    assert [point.scale for point in curve.points] == list(SCALES)
    for point in curve.points:
        said = answers(scaled_base(run, 1000, point.scale), images, run)
        assert point.source == pytest.approx(np.mean(np.equal(said, before)))
    assert curve.points[0].source == 1.0 > curve.points[-1].source  # else this run would show nothing


def test_the_target_is_scored_with_the_adapters_head(run: Path, by_agreement: Retained) -> None:
    curve = by_agreement
    trained = load_trained(run)
    assert curve.points[-1].target == pytest.approx(trained.about["scores"]["top1"])
    images = sorted((run.parent / "val").rglob("*.png"))
    truth = [trained.classes.index(path.parent.name) for path in images]
    model = load_trained(run, merged=False).model
    half = answers(vl.merge(model, scale=0.5), images, run)
    assert curve.points[1].target == pytest.approx(np.mean(np.equal(half, truth)))


def test_a_scaled_adapter_is_a_file_that_computes_the_merged_model(run: Path, tmp_path: Path) -> None:
    write_scaled(run / "adapter.safetensors", 0.3, tmp_path / "scaled.safetensors")
    x = torch.randn(4, 3, 32, 32)
    expected = merged_at(load_trained(run, merged=False).model, 0.3).eval()
    scaled = load_trained(tmp_path / "scaled.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(scaled.model(x), expected(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(expected(x), load_trained(run).model(x), atol=1e-3)
    assert scaled.classes == load_trained(run).classes
    assert "scores" not in scaled.about


def test_the_largest_scale_that_keeps_enough_is_taken() -> None:
    points = [
        Point(0, 0.5, 0.8),
        Point(0.5, 0.7, 0.79),
        Point(0.7, 0.8, 0.6),
        Point(0.9, 0.8, 0.78),
        Point(1, 0.9, 0.4),
    ]
    curve = Retained(points, "top1", True, 10)
    assert curve.largest(0.98).scale == 0.5
    assert curve.largest(0.97).scale == 0.9
    with pytest.raises(InputError, match="no scale above 0 keeps so much; 0.5 keeps 0.988"):
        curve.largest(0.99)


def test_a_method_that_does_not_add_is_had_whole_or_not_at_all() -> None:
    model = base(OWN)
    vl.attach(model, vl.LoRAConfig(rank=2, method="dora", unfreeze=["head"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    x = torch.randn(2, 3, 32, 32)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(merged_at(model, 0.0).eval()(x), base(OWN).eval()(x))
        torch.testing.assert_close(merged_at(model, 1.0).eval()(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_base_without_a_head_for_these_classes_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the base has no head of its own for 1000 classes"):
        found(run, "any")
    with pytest.raises(InputError, match="the base has no head of its own for 3 classes"):
        found(run, "val")


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """The exit code of ``visionlora eval`` with these."""
    monkeypatch.setattr(sys, "argv", ["visionlora", "eval", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_the_command_leaves_curve_and_adapter(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, known = tmp_path / "kept", run.parent / "known"
    assert not command(monkeypatch, run, "--retain", known, "--retain-at-least", 0.01, "--retain-out", out)
    assert {path.name for path in out.iterdir()} == {"retained.png", "retained.json", "adapter.safetensors"}
    assert "scale 1 keeps" in capsys.readouterr().out
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(
            load_trained(out / "adapter.safetensors", run.parent / "5.safetensors").model(x), load_trained(run).model(x)
        )
    for options, words in (
        (["--retain-at-least", 0.9], "need --retain PATH"),
        (["--retain", known, "--retain-at-least", 0.9], "give a folder for it as --retain-out"),
        (["--retain", known, "--retain-out", out], "is not empty"),
        (["--retain", known, "--base"], "exclude each other"),
    ):
        assert command(monkeypatch, run, *options) == 2
        assert words in capsys.readouterr().err
