"""A detector that learns a class beside those of its base: their boxes and scores stay as they were."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.squares import Command
from visionlora.data.detection.transforms import DetectionEvalTransform
from visionlora.data.images import read_image
from visionlora.errors import InputError
from visionlora.exports.opening import open_trained
from visionlora.tasks.detection.distilling import found_again
from visionlora.tasks.detection.inference import predict_detections
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained, write_plain
from visionlora.training.concluding import Result
from visionlora.training.run import prepare, train

LAYOUT = ("levels", "fpn_channels", "head_convs", "size", "mean", "std")
TRAIN = {"epochs": 4, "evaluate_every": 4, "lr": 0.02, "head_lr": 0.03}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keeping_boxes")


@pytest.fixture(scope="module")
def scenes(folder: Path) -> Path:
    return make_scenes(folder / "scenes")


@pytest.fixture(scope="module")
def base(folder: Path, scenes: Path) -> Path:
    """A whole detector of red squares, as ``visionlora merge`` writes one; it has not learnt much, and says a lot."""
    config = make_detection_config(scenes, folder / "x", data={"leave_out": ["blue"]})
    setup = task_of("detection").set_up(config)
    with torch.no_grad():
        setup.built.model.get_submodule("head.classification_head.cls_logits").bias.fill_(-0.5)
    about = {"task": "detection", "model": setup.settings.model_dump(mode="json"), "thresholds": {"red": 0.3}}
    out = folder / "base.safetensors"
    write_plain(setup.built.model, out, setup.classes, setup.preprocessing.to_dict(), about)
    return out


@pytest.fixture(scope="module")
def finished(folder: Path, scenes: Path, base: Path) -> Result:
    config = make_detection_config(
        scenes,
        folder / "run",
        # Layout, size and preprocessing are the base's own.
        model={
            "checkpoint": str(base),
            **dict.fromkeys(("levels", "fpn_channels", "head_convs", "size", "mean", "std")),
        },
        data={"leave_out": ["red"]},
        keep_classes=True,
        **TRAIN,
    )
    return train(config, quiet=True)


@pytest.fixture
def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(3, *size, generator=generator) for size in ((64, 96), (96, 64), (64, 96))]


def test_old_boxes_are_the_bases_and_new_ones_the_adapters(finished: Result, base: Path, scenes: Path) -> None:
    trained, alone, known = (
        load_trained(finished.folder),
        load_trained(finished.folder, alone=True),
        load_trained(base),
    )
    assert trained.classes == ["red", "blue"] and trained.preprocessing.size == 96
    images = [DetectionEvalTransform(96)(read_image(path), ())[0] for path in sorted(scenes.parent.glob("*.png"))[-4:]]
    with torch.no_grad():
        found, old, new = (one.model(images) for one in (trained, known, alone))
    assert sum(len(one["scores"]) for one in old) and sum(len(one["scores"]) for one in new)
    for one, a, b in zip(found, old, new, strict=True):
        many = len(a["scores"])
        assert all(torch.equal(one[key][:many], a[key]) for key in a)
        assert torch.equal(one["boxes"][many:], b["boxes"]) and torch.equal(one["scores"][many:], b["scores"])
    labels = [set(one["labels"].tolist()) for one in trained.built.to_classes(found)]
    assert set.union(*labels) == {0, 1}
    assert finished.kept is not None and finished.kept.compared == 4


@pytest.mark.parametrize("way", [True, "distill"])
def test_pyramid_and_head_train_whole_unless_told_otherwise(
    way: bool | str, folder: Path, scenes: Path, base: Path
) -> None:
    def made(**lora: Any) -> tuple[dict[str, Tensor], set[str]]:
        """The base's tensors as a run begins, and the names of those that train whole."""
        config = make_detection_config(
            scenes,
            folder / "x",
            model={"checkpoint": str(base), **dict.fromkeys(LAYOUT)},
            data={"leave_out": ["red"]},
            keep_classes=way,
        )
        config = config.model_copy(update={"lora": replace(config.lora, **lora)})
        setup = task_of("detection").set_up(config)
        values = {name: value.clone() for name, value in setup.built.model.state_dict().items()}
        prepare(config, setup)
        named = setup.built.model.named_parameters()
        return values, {name for name, parameter in named if parameter.requires_grad and "lora" not in name}

    known = load_trained(base).model
    above = {name for name, _ in known.named_parameters() if not name.startswith("backbone.body.")}
    predictor = "head.classification_head.cls_logits"
    of_the_base = {name for name in known.state_dict() if not name.startswith(predictor)}

    values, trains = made()
    assert trains == above
    others = {name for name in of_the_base if not torch.equal(values[name], known.state_dict()[name])}
    assert all(name in above for name in others) and bool(others) == (way is True)  # those anew, and no other

    values, trains = made(unfreeze=[predictor])
    assert trains == {f"{predictor}.weight", f"{predictor}.bias"}
    assert all(torch.equal(values[name], known.state_dict()[name]) for name in of_the_base)


def test_eval_predict_and_export_know_both(
    finished: Result, base: Path, scenes: Path, folder: Path, visionlora: Command
) -> None:
    out = folder / "scores.json"
    shown = visionlora("eval", finished.folder, "data.leave_out=[]", "--out", out)
    groups = json.loads(out.read_text())["groups"]
    assert "old: mean of those of 1" in shown.out and groups["new"]["AP50"] == finished.per_class["blue"]["AP50"]
    alone = visionlora(
        "eval", base, f"data.annotations={scenes}", "data.leave_out=[blue]", "data.workers=0", "--part", "day=friday"
    )
    assert f"{groups['old']['AP50']:.3f}" in alone.out  # the old class scores what it scored
    found = folder / "found.json"
    assert not visionlora("predict", finished.folder, scenes.parent, "--out", found, "--min-score", 0.1).code
    assert {entry["category_id"] for entry in json.loads(found.read_text())} == {1, 2}


@pytest.mark.parametrize("form", ["torchvision", "onnx"])
def test_one_exported_file_holds_both(
    form: str, finished: Result, folder: Path, pictures: list[Tensor], visionlora: Command
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    out = folder / form
    exported = visionlora("export", finished.folder, "--to", form, "--out", out, "--rounds", 1)
    assert not exported.code, exported.err
    found = open_trained(out)
    assert found.classes == ["red", "blue"]
    if form == "torchvision":
        expected = load_trained(finished.folder)
        with torch.no_grad():
            pairs = list(zip(found.model(pictures), expected.model(pictures), strict=True))
        assert all(torch.equal(one[key], other[key]) for one, other in pairs for key in other)
        assert found.about["thresholds"] == expected.about["thresholds"]
        heads = visionlora("export", finished.folder, "--to", "onnx-heads", "--out", folder / "heads")
        assert heads.code == 2 and "its base answers beside it; take --to onnx" in heads.err


def test_one_detector_learns_old_classes_from_the_bases_boxes(folder: Path, scenes: Path, base: Path) -> None:
    config = make_detection_config(
        scenes,
        folder / "distilled",
        model={"checkpoint": str(base), **dict.fromkeys(LAYOUT)},
        data={"leave_out": ["red"]},
        keep_classes="distill",
        **{**TRAIN, "epochs": 1, "evaluate_every": 1},
    )
    setup = task_of("detection").set_up(config)
    known = load_trained(base)
    assert setup.classes == ["red", "blue"] and setup.train is not None
    threshold = known.about["thresholds"]["red"]
    for image in setup.train.images:
        own = [thing for thing in image.objects if not thing.label]
        (found,) = predict_detections(known, [read_image(image.path)], [threshold], torch.device("cpu"))
        overlaps = torch.tensor([thing.box for thing in image.objects if thing.label]).reshape(-1, 4)
        apart = ~(box_iou(found["boxes"], overlaps) > 0.5).any(1)
        rounded = found["boxes"].double().round(decimals=1)
        apart &= (rounded[:, 2:] > rounded[:, :2]).all(1)  # it may see a border
        boxes = torch.tensor([thing.box for thing in own]).reshape(-1, 4)
        torch.testing.assert_close(boxes, found["boxes"][apart], rtol=0, atol=0.06)
    assert setup.train.counts()[0] > 0
    # It begins as the base: the class that both have has the base's rows.
    rows, old = (
        one.get_submodule("head.classification_head.cls_logits").bias.detach().view(-1, n)[:, 0]
        for one, n in ((setup.built.model, 2), (known.model, 1))
    )
    assert torch.equal(rows, old)
    result = train(config, quiet=True)
    assert result.kept is not None and result.kept.agreement is not None and 0 <= result.kept.agreement <= 1
    assert load_trained(result.folder).classes == ["red", "blue"]


def test_boxes_found_again_are_of_the_same_label_and_near() -> None:
    def found(*rows: tuple[int, list[float]]) -> dict[str, Tensor]:
        boxes = torch.tensor([box for _, box in rows]).reshape(-1, 4)
        return {"boxes": boxes, "labels": torch.tensor([label for label, _ in rows], dtype=torch.long)}

    old = found((0, [0, 0, 10, 10]), (0, [20, 20, 30, 30]), (1, [40, 40, 50, 50]))
    now = found((0, [1, 0, 10, 10]), (1, [20, 20, 30, 30]), (1, [46, 40, 56, 50]), (0, [80, 80, 90, 90]))
    assert found_again([old, found()], [now, now]) == (1, 3)


def test_a_backbone_is_no_detector_to_keep(folder: Path, scenes: Path) -> None:
    config = make_detection_config(scenes, folder / "x", keep_classes=True)
    with pytest.raises(InputError, match="holds no whole detector, so there are no classes of it to keep"):
        train(config, quiet=True)
    with pytest.raises(InputError, match="train.keep_overlap is of no use without train.keep_classes"):
        train(make_detection_config(scenes, folder / "x", keep_overlap=0.5), quiet=True)
