"""Training on what the frozen part of a model makes of its images: the same run, with that part computed once."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.runs import interrupt, make_images
from visionlora.config import check_config
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.training.cut import find_cut
from visionlora.training.run import run_to_try, train

pytestmark = pytest.mark.usefixtures("no_figures")

LAST = {"test_vit": ["blocks.5.*"], "test_resnet": ["layer4.*"], "test_convnext": ["stages.3.*"]}
CUTS = {"test_vit": "blocks.5", "test_resnet": "layer4.0", "test_convnext": "stages.3.downsample"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), train=5, val=2)


def config_of(images: Path, out: Path, model: str = "test_vit", **changed: Any) -> RunConfig:
    values: dict[str, Any] = {
        "model": {"name": model, "pretrained": False, "img_size": 32},
        "data": {"root": str(images), "augment": "none", "workers": 0},
        "lora": {"rank": 2, "targets": LAST[model]},
        "train": {"epochs": 2, "batch_size": 4, "lr": 0.01, "head_lr": 0.01, "log_every": 1, "cache_features": True},
        "out": str(out),
    }
    for key, value in changed.items():
        section, _, name = key.partition("__")
        values[section][name] = value
    return check_config(values)


@pytest.fixture(scope="module")
def cached(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with the cache, and what it said. Not to be changed."""
    out, console = tmp_path_factory.mktemp("cached") / "run", Console(file=StringIO(), width=200)
    train(config_of(images, out), console=console)
    return out, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", LAST)
def test_above_the_cut_features_are_as_good_as_images(images: Path, tmp_path: Path, model: str) -> None:
    state = run_to_try(config_of(images, tmp_path, model), torch.device("cpu"))
    with torch.no_grad():
        heads = [p for name, p in state.model.named_parameters() if name.startswith(("head", "fc")) and p.requires_grad]
        for parameter in heads:  # as a pretrained model's new one starts: whatever comes in, nothing comes out
            parameter.zero_()
    cut = find_cut(state.model.train(), torch.randn(2, 3, 32, 32))
    assert cut.path.startswith(CUTS[model]) and ".attn" not in cut.path
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            if parameter.requires_grad and ("lora_B" in name or name.startswith(("head", "fc"))):
                parameter.normal_(std=0.1)
    x = torch.randn(5, 3, 32, 32)
    features = cut.features(state.model, x)
    expected = state.model(x)
    with cut.shown(state.model):
        found = state.model(features)
    assert torch.equal(found, expected)
    found.sum().backward()
    grads = {name: p.grad for name, p in state.model.named_parameters() if p.grad is not None}
    state.model.zero_grad(set_to_none=True)
    expected.sum().backward()
    assert grads and all(torch.equal(g, state.model.get_parameter(name).grad) for name, g in grads.items())  # type: ignore[arg-type]
    assert torch.equal(state.model(x), expected)  # nothing is left behind


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_with_the_cache_is_the_run_without(images: Path, tmp_path: Path, cached: tuple[Path, str]) -> None:
    out, said = cached
    train(config_of(images, tmp_path / "plain", train__cache_features=False), quiet=True)
    assert losses(out) == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    mine, plain = (load_file(folder / "adapter.safetensors") for folder in (out, tmp_path / "plain"))
    assert mine.keys() == plain.keys()
    for name, tensor in plain.items():  # the batches that features were computed in round otherwise
        torch.testing.assert_close(mine[name], tensor, rtol=1e-3, atol=1e-5)
    size = 15 * 5 * 64 * 4  # images, tokens, channels, bytes
    assert f"what is below blocks.5 is computed once: {size / 1e6:.1f} MB of 15 images" in said
    assert not (out / "features").exists()


def test_the_head_alone_is_cut_off_too(images: Path, tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=200)
    train(config_of(images, tmp_path / "run", train__method="head", train__epochs=1), console=console)
    assert "what is below head is computed once: 0.0 MB" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_stopped_run_finds_its_features_again_or_computes_them(
    images: Path, tmp_path: Path, cached: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    config = config_of(images, tmp_path / "run")
    interrupt(config, monkeypatch, step=5)
    file = tmp_path / "run" / "features" / "features.bin"
    if damaged:
        content = bytearray(file.read_bytes())
        content[100] ^= 255
        file.write_bytes(content)
    console = Console(file=StringIO(), width=200)
    train(config, resume=True, console=console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("is computed once" in said, "is there already" in said) == (damaged, not damaged)
    files = [folder / "adapter.safetensors" for folder in (cached[0], tmp_path / "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data__augment": "light"}, "data.augment=light shows each image otherwise in every epoch"),
        ({"train__mixup": 0.2}, "train.mixup mixes images at random"),
        ({"lora__targets": "all"}, "nothing can be kept, for 'patch_embed.proj' trains"),
        ({"train__cache_limit": 1e-9}, "take .*e-05 GB in .*, and train.cache_limit allows 1e-09 GB"),
        ({"model__drop_path_rate": 0.5}, "would be drawn at random"),
        ({"train__method": "full"}, "nothing can be kept"),
    ],
)
def test_what_can_not_be_kept_is_refused(images: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(config_of(images, tmp_path / "run", **changed), quiet=True)
    assert not [path for path in (tmp_path / "run").glob("*") if path.name != "run.lock"]


def test_of_a_detector_nothing_is_kept(tmp_path: Path) -> None:
    config = make_detection_config(make_scenes(tmp_path / "data", 2, 1), tmp_path / "run", cache_features=True)
    with pytest.raises(InputError, match="is for classifiers, and this run is of a detector"):
        train(config, quiet=True)
