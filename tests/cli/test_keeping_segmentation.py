"""A segmenter that learns a class beside those of its base, whose logits stay as they were."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.segmentation_runs import make_masks, make_segmentation_config
from helpers.squares import Command
from visionlora.cli.merge import merge
from visionlora.errors import InputError
from visionlora.exports.opening import open_trained
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained
from visionlora.training.concluding import Result
from visionlora.training.run import prepare, train

OPEN = ("channels", "mean", "std")
TRAIN = {"epochs": 6, "evaluate_every": 6, "checkpoint_every": 100}


def classes_of(known: str, as_ground: str) -> str:
    """A file of classes in which one colour of square is ground."""
    values = {"red": 7, "blue": 1}
    return (
        f"classes: [ground, {known}, {{name: void, value: 9}}]\nignore: void\n"
        f"values: {{3: ground, {values[as_ground]}: ground, {values[known]}: {known}}}\n"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_masks(tmp_path_factory.mktemp("keeping_masks") / "scenes", train=8)
    (root / "red.yaml").write_text(classes_of("red", "blue"))
    (root / "blue.yaml").write_text(classes_of("blue", "red"))
    return root.parent


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    """A whole segmenter of ground and red squares."""
    root, out = folder / "scenes", folder / "base.safetensors"
    config = make_segmentation_config(root, folder / "base_run", data={"classes": str(root / "red.yaml")}, **TRAIN)
    merge(train(config, quiet=True).folder, out, None, overwrite=False, download=False)
    return out


@pytest.fixture(scope="module")
def finished(folder: Path, base: Path) -> Result:
    root = folder / "scenes"
    config = make_segmentation_config(
        root,
        folder / "run",
        model={"checkpoint": str(base), **dict.fromkeys(OPEN)},
        data={"classes": str(root / "blue.yaml"), "background": "ground"},
        keep_classes=True,
        **TRAIN,
    )
    return train(config, quiet=True)


def test_old_logits_are_the_bases_and_a_new_class_wins_where_it_beats_its_ground(finished: Result, base: Path) -> None:
    trained, alone, known = (
        load_trained(finished.folder),
        load_trained(finished.folder, alone=True),
        load_trained(base),
    )
    assert trained.classes == ["ground", "red", "blue"] and alone.classes == ["ground", "blue"]
    images = torch.randn(2, 3, 62, 90, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found, old, new = (one.model(images) for one in (trained, known, alone))
    assert torch.equal(found[:, :2], old)
    wins = new[:, 1] > new[:, 0]
    assert torch.equal(found.argmax(1), torch.where(wins, 2, old.argmax(1)))
    assert finished.kept is not None and finished.kept.compared == 4
    colors = trained.about["colors"]
    assert colors[:2] == known.about["colors"] and trained.about["values"] == [0, 1, 2]


def test_the_decoder_trains_whole_from_the_bases_unless_told_otherwise(folder: Path, base: Path) -> None:
    config = make_segmentation_config(
        folder / "scenes",
        folder / "x",
        model={"checkpoint": str(base), **dict.fromkeys(OPEN)},
        data={"classes": str(folder / "scenes/blue.yaml"), "background": "ground"},
        keep_classes=True,
    )
    known = load_trained(base).model.state_dict()

    def trains(unfreeze: list[str] | None) -> tuple[set[str], str]:
        """What trains whole, and the layer of the classes."""
        own = config.model_copy(update={"lora": replace(config.lora, unfreeze=unfreeze)})
        setup = task_of("segmentation").set_up(own)
        values = setup.built.model.state_dict()
        other = {name.rpartition(".")[0] for name in known if not torch.equal(values[name], known[name])}
        (layer,) = other
        prepare(own, setup)
        named = setup.built.model.named_parameters()
        return {name for name, parameter in named if parameter.requires_grad and "lora" not in name}, layer

    decoder = {name for name, _ in load_trained(base).model.named_parameters() if name.startswith("decoder.")}
    whole, layer = trains(None)
    assert whole == decoder
    assert trains([layer])[0] == {f"{layer}.weight", f"{layer}.bias"}


def test_eval_predict_and_export_know_both(finished: Result, folder: Path, visionlora: Command) -> None:
    pytest.importorskip("onnxruntime")
    out, all_classes = folder / "scores.json", folder / "scenes/classes.yaml"
    shown = visionlora("eval", finished.folder, f"data.classes={all_classes}", "--out", out)
    groups = json.loads(out.read_text())["groups"]
    assert "old: mean of those of 2" in shown.out and groups["old"]["IoU"] > 0.2 and "IoU" in groups["new"]
    masks = folder / "masks"
    assert not visionlora("predict", finished.folder, folder / "scenes/val/images", "--masks", masks).code
    assert len(list(masks.rglob("*.png"))) == 4
    onnx = folder / "onnx"
    exported = visionlora("export", finished.folder, "--to", "onnx", "--out", onnx, "--rounds", 1)
    assert not exported.code, exported.err
    assert open_trained(onnx).classes == ["ground", "red", "blue"]


def test_a_new_class_needs_a_background(folder: Path, base: Path) -> None:
    root = folder / "scenes"
    whole = {"checkpoint": str(base), **dict.fromkeys(OPEN)}
    data = {"classes": str(root / "blue.yaml")}
    with pytest.raises(InputError, match="data.background=background is none of ground, blue"):
        train(make_segmentation_config(root, folder / "x", whole, data, keep_classes=True), quiet=True)
    with pytest.raises(InputError, match="holds no whole segmenter, so there are no classes of it to keep"):
        train(make_segmentation_config(root, folder / "x", None, data, keep_classes=True), quiet=True)
