"""Whatever can't be used is told in one line on stderr, with exit code 2."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import visionlora as vl
from helpers.squares import Command, Outcome, write_config


def line_of(outcome: Outcome) -> str:
    """The one line of an error."""
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.endswith("\n")
    assert outcome.err.count("\n") == 1, outcome.err
    return outcome.err.removeprefix("error: ").removesuffix("\n")


SETTINGS = {
    "modell.name=x": "unknown key 'modell' (did you mean 'model'?)",
    "train.epoch=3": "unknown key 'train.epoch' (did you mean 'train.epochs'?)",
    "train.epochs=0": "train.epochs is '0'",
    "train.epochs": "'train.epochs' is no override",
    "train.lr=[1": "not valid YAML",
    "data.root=null": "data.root",
    "data.root={tmp}/nothing": "no such folder",
    "data.root={tmp}/squares.yaml": "is a file",
    "data.train=trian": "did you mean 'train'?",
    "data.val=vall": "did you mean 'val'?",
    "data.csv={tmp}/none.csv": "none.csv: no such file",
    "data.csv={tmp}": "no such file",
    "data.multilabel=true": "needs a table",
    "data.augment=heavy": "data.augment is 'heavy'",
    "model.name=test_resnett": "unknown model 'test_resnett' (did you mean 'test_resnet'?)",
    "model.checkpoint={tmp}/none.pth": "none.pth: no such file",
    "model.checkpoint={tmp}": "no such file",
    "model.checkpoint={tmp}/squares.yaml": "can't be read as weights",
    "model.checkpoint={tmp}/vit.safetensors": "not the weights of test_resnet",
    "model.interpolation=bicubc": "did you mean 'bicubic'?",
    "model.std=[0,0,0]": "positive stds",
    "lora.targets=[layer1.0.conv9]": "target 'layer1.0.conv9' matches no layer",
    "lora.exclude=[nothing]": "exclude 'nothing' matches no layer",
    "lora.unfreeze=[nothing]": "unfreeze 'nothing' matches no module",
    "lora.rank_pattern={{nothing: 2}}": "'nothing' matches no adapted layer",
    "lora.alpha=0": "alpha is 0",
    "train.monitor=top2": "train.monitor is 'top2'; choose from top1",
    "train.device=cuda:99": "can't be used here",
    "train.device=toaster": "can't be used here",
    "train.lr=1e30": "weights are no longer finite",
    "out={tmp}/squares.yaml": "is a file",
    "out={tmp}/squares.yaml/run": "squares.yaml/run",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_cannot_be_used(visionlora: Command, config: Path, tmp_path: Path, setting: str) -> None:
    if "vit.safetensors" in setting:
        save_file(timm.create_model("test_vit", num_classes=2).state_dict(), tmp_path / "vit.safetensors")
    line = line_of(visionlora("train", "--config", config, setting.format(tmp=tmp_path)))
    assert SETTINGS[setting] in line
    assert not (tmp_path / "run").exists() or "finite" in line  # refused before anything is written


def test_an_impossible_image_size(visionlora: Command, config: Path) -> None:
    line = line_of(visionlora("train", "--config", config, "model.name=test_vit", "model.img_size=33"))
    assert "33 x 33 (model.img_size)" in line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("classification_vit_tinny", "did you mean 'classification_vit_tiny'?"),
        ("none.yaml", "no such file, nor a shipped config"),
        ("", "--config is missing; give a YAML file or one of classification_"),
    ],
)
def test_a_config_that_is_not_there(visionlora: Command, name: str, words: str) -> None:
    assert words in line_of(visionlora("train", "--config", name))


def test_a_folder_for_a_config(visionlora: Command, tmp_path: Path) -> None:
    assert "no such file" in line_of(visionlora("train", "--config", tmp_path))


def test_no_config_at_all(visionlora: Command) -> None:
    assert "--config is missing" in line_of(visionlora("train", "data.root=x"))


def change_one_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "red")
    shutil.rmtree(root / "train" / "green")


def change_empty_class(root: Path) -> None:
    for image in (root / "train" / "red").iterdir():
        image.unlink()


def change_new_class(root: Path) -> None:
    (root / "val" / "red").rename(root / "val" / "redd")


def change_unreadable(root: Path) -> None:
    for index in range(2):
        (root / "train" / "red" / f"{index}.png").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_one_class, ["only one class (blue)"]),
        (change_empty_class, ["class 'red' has no image"]),
        (change_new_class, ["redd", "did you mean 'red'?"]),
        (change_unreadable, ["2 images can't be read", "0.png", "1.png", "data.skip_unreadable=true"]),
    ],
)
def test_data_that_cannot_be_used(
    visionlora: Command, squares: Path, tmp_path: Path, change: Callable[[Path], None], words: list[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(squares, root)
    change(root)
    line = line_of(visionlora("train", "--config", write_config(tmp_path, root)))
    for word in words:
        assert word in line


def test_a_run_folder_that_is_not_empty(visionlora: Command, trained: Path, config: Path) -> None:
    line = line_of(visionlora("train", "--config", config, f"out={trained}"))
    assert "is not empty" in line
    assert "--resume" in line
    assert "--overwrite" in line


def test_resuming_with_other_settings(visionlora: Command, trained: Path, squares: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, squares)
    line = line_of(visionlora("train", "--config", config, f"out={trained}", "train.seed=7", "--resume"))
    assert "can't resume with other settings: train.seed (0, now 7); bring them back" in line


def test_resuming_a_folder_without_a_run_and_overwriting_a_foreign_one(
    visionlora: Command, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    thesis = tmp_path / "run" / "thesis.txt"
    thesis.write_text("precious")
    assert "no run to resume" in line_of(visionlora("train", "--config", config, "--resume"))
    assert "holds thesis.txt" in line_of(visionlora("train", "--config", config, "--overwrite"))
    assert thesis.read_text() == "precious"


def test_resuming_and_overwriting_at_once(visionlora: Command, config: Path) -> None:
    assert "exclude each other" in line_of(visionlora("train", "--config", config, "--resume", "--overwrite"))


COMMANDS = {
    "a run that is not there": (["eval", "{tmp}/none"], "no such file or run folder"),
    "a folder without a run": (["eval", "{tmp}"], "holds no adapter.safetensors"),
    "a file that is no adapter": (["predict", "{tmp}/squares.yaml", "{squares}"], "not a whole safetensors file"),
    "plain weights": (["eval", "{tmp}/plain.safetensors"], "not what a run writes"),
    "an unknown part": (["eval", "{run}", "--part", "vall"], "did you mean 'val'?"),
    "an unknown setting": (["eval", "{run}", "data.rot=x"], "did you mean 'data.root'?"),
    "an unknown device": (["eval", "{run}", "--device", "toaster"], "'toaster' can't be used here"),
    "scores into a folder": (["eval", "{run}", "--out", "{tmp}"], "is a folder; give a file"),
    "scores below a file": (["eval", "{run}", "--out", "{tmp}/squares.yaml/s.json"], "squares.yaml is a file"),
    "an image that is not there": (["predict", "{run}", "{squares}/val/red/00.png"], "no such image or folder"),
    "a folder without images": (["predict", "{run}", "{tmp}/empty"], "holds no image"),
    "a file that is no image": (["predict", "{run}", "{tmp}/squares.yaml"], "no video of a known format"),
    "predictions into a folder": (["predict", "{run}", "{squares}/val", "--out", "{tmp}"], "is a folder; give a file"),
    "merging into a folder": (["merge", "{run}", "--out", "{tmp}"], "ends in .safetensors"),
    "merging into a pickle": (["merge", "{run}", "--out", "{tmp}/m.pth"], "ends in .safetensors"),
    "a base that is not there": (
        ["merge", "{run}", "--out", "{tmp}/m.safetensors", "--checkpoint", "x"],
        "no such file",
    ),
    "an unknown model": (["inspect", "test_resnett"], "did you mean 'test_resnet'?"),
    "an unknown target": (["inspect", "test_vit", "--targets", "atn.qkv"], "did you mean"),
    "no rank": (["inspect", "test_vit", "--rank", "0"], "rank is 0"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_cannot_be_done(
    visionlora: Command, trained: Path, squares: Path, config: Path, tmp_path: Path, case: str
) -> None:
    assert config.is_file()
    (tmp_path / "empty").mkdir()
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "plain.safetensors")
    arguments, words = COMMANDS[case]
    outcome = visionlora(*(argument.format(tmp=tmp_path, run=trained, squares=squares) for argument in arguments))
    assert words in line_of(outcome)
    assert not outcome.out.strip()


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_adapter(visionlora: Command, trained: Path, tmp_path: Path, part: float) -> None:
    whole = (trained / "adapter.safetensors").read_bytes()
    path = tmp_path / "camera.safetensors"
    path.write_bytes(whole[: int(part * len(whole))])
    for command in (("eval", path), ("merge", path, "--out", tmp_path / "m.safetensors")):
        assert str(path) in line_of(visionlora(*command))


def test_an_adapter_of_another_program(visionlora: Command, tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=2, zero_init_last=False)
    vl.attach(model, vl.LoRAConfig(targets=["layer1.0.conv1"]))
    vl.save_adapter(model, tmp_path / "bare.safetensors")
    line = line_of(visionlora("eval", tmp_path / "bare.safetensors"))
    assert "does not say its classes" in line


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "/data/x.png"), OSError(28, "No space left on device", "/run/m")]
)
def test_what_the_system_refuses(
    visionlora: Command, config: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise error

    monkeypatch.setattr("visionlora.training.run.open_folder", refuse)
    line = line_of(visionlora("train", "--config", config))
    assert error.strerror in line
    assert error.filename in line


@pytest.mark.parametrize("arguments", [["trian"], ["predict"], ["merge", "run"], ["inspect", "x", "--classes", "0"]])
def test_wrong_usage_is_exit_code_2_as_well(visionlora: Command, arguments: list[str]) -> None:
    outcome = visionlora(*arguments)
    assert outcome.code == 2
    assert "Usage: visionlora" in outcome.err


def test_a_bug_is_not_hidden(visionlora: Command, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("visionlora.training.run.prepare", broken)
    with pytest.raises(ZeroDivisionError):
        visionlora("train", "--config", config)
