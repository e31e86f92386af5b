"""Files of trained models that nobody of us wrote: one line says what is wrong, before anything is built."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import visionlora as vl
from helpers.foreign import NESTED, metadata_of, rewrite
from visionlora.cli.main import main
from visionlora.errors import InputError
from visionlora.tasks.trained import load_trained, write_plain
from visionlora.tensor_files import LARGEST_HEADER

PREPROCESSING = {
    "height": 32,
    "width": 32,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
}
ABOUT = {"task": "classification", "model": {"name": "test_resnet", "pretrained": False}, "seed": 0}
LAYER = "layer1.0.conv1.weight"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=[LAYER.removesuffix(".weight")], unfreeze=["fc"]))
    path = tmp_path_factory.mktemp("foreign") / "adapter.safetensors"
    vl.save_adapter(model, path, classes=["a", "b", "c"], preprocessing=PREPROCESSING, extra=ABOUT)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "model.safetensors"
    write_plain(timm.create_model("test_resnet", num_classes=3), path, ["a", "b", "c"], PREPROCESSING, ABOUT)
    return path


def refusal(path: Path) -> str:
    """The line that a file is refused with; little memory is taken for it."""
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        load_trained(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 600
    assert peak < 300e6
    return message


def layer(**changes: Any) -> dict[str, Any]:
    return {"layers": {LAYER: {"rank": 2, "alpha": 16.0, "parts": "", **changes}}}


def config(**changes: Any) -> dict[str, Any]:
    return {"config": {"rank": 2, "alpha": 16.0, **changes}}


OF_ADAPTERS = [
    (layer(rank=10**8), "rank of layer1.0.conv1.weight is 100000000"),
    (layer(rank=10**30), "a whole number of 100 bits"),
    (layer(rank=900_000), "lora_A is of shape (2,"),
    (layer(rank=True), "rank of layer1.0.conv1.weight is True"),
    (layer(alpha=3), "alpha of layer1.0.conv1.weight is 3"),
    (layer(alpha=1e999), "alpha is inf"),
    (layer(parts=[]), "parts of layer1.0.conv1.weight is []"),
    (layer(parts="q" * 5000), "parts of layer1.0.conv1.weight is"),
    (layer(more=1), "has 'more'"),
    ({"layers": {LAYER: 1}}, "layer1.0.conv1.weight is 1"),
    ({"layers": {"x" * 5000: {}}}, "a key of 5000 characters"),
    ({"layers": []}, "layers is []"),
    (config(alpha=10**400), "a whole number of 1329 bits"),
    (config(rank=10**8), "rank is 100000000"),
    (config(targets={"a": 1}), "targets is {'a': 1}"),
    (config(targets=[1]), "an entry of targets is 1"),
    (config(exclude=3), "exclude is 3"),
    (config(unfreeze=[None]), "an entry of unfreeze is None"),
    (config(rank_pattern=[]), "rank_pattern is []"),
    (config(method=[]), "method is []"),
    (config(batchnorm={}), "batchnorm is {}"),
    ({"config": []}, "config is []"),
    ({"config": NESTED}, "nested too deeply, more than 32 levels"),
    ({"unfrozen": [1]}, "an entry of unfrozen is 1"),
    ({"architecture": {"timm": [1]}}, "timm of architecture is [1]"),
    ({"base": {"conv1.weight": 3}}, "conv1.weight of base is 3"),
    ({"rounded": {"bfloat16": []}}, "bfloat16 of rounded is []"),
    ({"rounded": NESTED}, "nested too deeply, more than 32 levels"),
]


@pytest.mark.parametrize(("fields", "words"), OF_ADAPTERS, ids=[words[:40] for _, words in OF_ADAPTERS])
def test_an_adapters_header_is_checked_to_the_last_value(
    adapter: Path, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    assert words in refusal(rewrite(adapter, tmp_path / "a.safetensors", **fields))


def shown(**changes: Any) -> dict[str, Any]:
    return {"preprocessing": PREPROCESSING | changes}


def about(**changes: Any) -> dict[str, Any]:
    return {"extra": ABOUT | changes}


def model(**changes: Any) -> dict[str, Any]:
    return about(model={"name": "test_resnet", "pretrained": False, **changes})


OF_ALL = [
    (shown(height=10**6, width=10**6), "height is 1000000; give a whole number from 1 to 16384"),
    (shown(height="x"), "height is 'x'"),
    (shown(width=1.5), "width is 1.5"),
    (shown(width=0), "width is 0"),
    (shown(mean=3), "mean or std is 3"),
    (shown(mean=["a", "b", "c"]), "mean or std is 'a'"),
    (shown(std=[0, 0, 0]), "three positive stds"),
    (shown(std=[float("nan")] * 3), "mean or std is nan"),
    (shown(crop_pct=1e-9), "crop_pct is 1e-09"),
    (shown(crop_pct=[]), "crop_pct is []"),
    (shown(interpolation={}), "unknown interpolation {}"),
    (shown(crop_mode=[1]), "unknown crop_mode [1]"),
    (shown(more=1), "missing or unknown: more"),
    ({"preprocessing": {}}, "does not say its classes, preprocessing and base"),
    ({"preprocessing": NESTED}, "nested too deeply, more than 32 levels"),
    ({"classes": [1, 2, 3]}, "class"),
    ({"classes": [["a"], {}, None]}, "class"),
    ({"classes": "3"}, "class"),
    ({"classes": '["\\ud800", "b", "c"]'}, "half a character"),
    ({"classes": ["a" * 2000, "b", "c"]}, "class"),
    ({"classes": [str(number) for number in range(20_000)]}, "there are 20000 class names, and no tensor has more"),
    ({"extra": []}, "is []"),
    ({"extra": "[" * 900 + "]" * 900}, "nested too deeply, more than 32 levels"),
    ({"extra": '{"model": ' + NESTED + "}"}, "nested too deeply, more than 32 levels"),
    (about(task={}), "task is no name"),
    (about(task="x"), "task is 'x'"),
    (about(seed="x"), "seed is 'x'"),
    (about(seed=-1), "seed is -1"),
    (about(scores={"top1": "x"}), "scores.top1 is 'x'"),
    (about(multilabel="maybe"), "multilabel is 'maybe'"),
    (about(model=[]), "model is []"),
    (model(img_size=10**6), "settings of its base"),
    (model(name=3), "settings of its base"),
    (model(more=3), "settings of its base"),
]


@pytest.mark.parametrize("kind", ["adapter", "plain"])
@pytest.mark.parametrize(("fields", "words"), OF_ALL, ids=[words[:40] for _, words in OF_ALL])
def test_what_a_file_says_of_its_model_is_checked_before_it_is_built(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, fields: Any, words: str
) -> None:
    path = rewrite(request.getfixturevalue(kind), tmp_path / "a.safetensors", **fields)
    monkeypatch.setattr("timm.create_model", lambda *_args, **_settings: pytest.fail("a model was built"))
    assert words in refusal(path)


@pytest.mark.parametrize("kind", ["adapter", "plain"])
def test_the_files_themselves_load(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    path = rewrite(request.getfixturevalue(kind), tmp_path / "a.safetensors")
    assert load_trained(path).classes == ["a", "b", "c"]


def test_a_header_beyond_all_bounds_is_not_parsed(adapter: Path, tmp_path: Path) -> None:
    names = json.dumps([f"class {number}" for number in range(1_500_000)])
    assert len(names) > LARGEST_HEADER
    path = rewrite(adapter, tmp_path / "a.safetensors", classes=names)
    assert "its header has" in refusal(path)


def test_weights_of_another_model_are_refused(plain: Path, tmp_path: Path) -> None:
    save_file({"fc.weight": torch.ones(3, 3)}, tmp_path / "a.safetensors", metadata_of(plain))
    assert "not the weights of test_resnet" in refusal(tmp_path / "a.safetensors")


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=[LAYER.removesuffix(".weight")]))
    numbers: Any = [1, 2, 3]
    with pytest.raises(InputError, match="can't be written"):
        vl.save_adapter(model, tmp_path / "a.safetensors", classes=numbers)
    assert not list(tmp_path.iterdir())


HUB = [
    {"pretrained": True},
    {"pretrained": True, "name": "resnet18"},
    {"name": "hf-hub:timm/resnet18.a1_in1k"},
    {"name": "hf-hub:timm/resnet18.a1_in1k", "checkpoint": __file__},
]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an address fails the test, whatever it makes of the error."""
    monkeypatch.setattr("socket.getaddrinfo", lambda *_address, **_options: pytest.fail("asks for an address"))
    monkeypatch.setattr("socket.socket.connect", lambda *address: pytest.fail("connects"))


@pytest.mark.parametrize("settings", HUB, ids=str)
def test_a_lone_file_names_what_it_would_download(
    adapter: Path, tmp_path: Path, no_network: None, settings: dict[str, Any]
) -> None:
    line = refusal(rewrite(adapter, tmp_path / "a.safetensors", **model(**settings)))
    assert "--download" in line and settings.get("name", "test_resnet") in line


def test_a_lone_file_of_plain_weights_never_needs_the_hubs(plain: Path, tmp_path: Path, no_network: None) -> None:
    assert load_trained(rewrite(plain, tmp_path / "a.safetensors", **model(pretrained=True))).classes == ["a", "b", "c"]
    line = refusal(rewrite(plain, tmp_path / "b.safetensors", **model(name="hf-hub:x/y")))
    assert "hf-hub:x/y" in line and "--download" in line


@pytest.mark.parametrize("told", ["download", "run folder"])
def test_whoever_says_so_gets_the_hubs_weights(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    path = rewrite(adapter, tmp_path / "adapter.safetensors", **model(pretrained=True))
    if told == "run folder":
        (tmp_path / "config.yaml").write_text("model: {name: test_resnet}\n")
    created = []
    monkeypatch.setattr("timm.create_model", lambda *_, pretrained, **__: created.append(pretrained) or 1 / 0)
    with pytest.raises(InputError):
        load_trained(path, download=told == "download")
    assert created == [True]


@pytest.mark.parametrize("command", ["predict", "eval", "merge", "export"])
def test_every_command_asks_before_it_downloads(
    adapter: Path, tmp_path: Path, no_network: None, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rewrite(adapter, tmp_path / "a.safetensors", **model(pretrained=True))
    more = {
        "predict": [tmp_path],
        "eval": [],
        "merge": ["--out", tmp_path / "m.safetensors"],
        "export": ["--to", "timm", "--out", tmp_path / "x"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["visionlora", command, str(path), *map(str, more[command])])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 2
    assert "--download" in capsys.readouterr().err
