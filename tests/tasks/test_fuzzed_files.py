"""Headers, configs and checkpoints changed at random: they load, or one line says why not. Nothing else happens.

``VISIONLORA_FUZZ=2000`` takes so many cases of each kind, a tenth of them where each builds a model.
"""

import copy
import json
import os
import random
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import visionlora as vl
from helpers.foreign import metadata_of, rewrite
from visionlora.config import check_config, dump_config, load_config, parse_overrides
from visionlora.data.annotations.yolo_yaml import load_yolo_yaml
from visionlora.data.segmentation.class_map import read_class_map
from visionlora.errors import InputError
from visionlora.tasks.registry import TASKS, task_of
from visionlora.tasks.trained import load_trained, write_plain
from visionlora.training.checkpoint import (
    Progress,
    _manifest,
    checkpoints,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)

CASES = int(os.environ.get("VISIONLORA_FUZZ", "150"))
FUZZ = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=CASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MOST_MEMORY = 3 << 20
"""KiB more than before that this file's tests may have taken at a time: the models of a file are built."""
WORDS = "x all hf-hub:a/b local-dir:/ os.system ../.. resnet18 detection segmentation lokr dora re:( * 1e999 nan é"
ODD = st.sampled_from([*WORDS.split(), "", "\x1b[2J", "\n", "\0", "\ud800", "x" * 3000])
NUMBERS = st.sampled_from([0, -1, 1, 3, 0.5, 1e-9, 10**6, 10**8, 2**63, 10**400, float("nan"), float("inf"), True])
SCALARS = ODD | NUMBERS | st.none()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ODD, inner, max_size=3), max_leaves=5
)


def changed(draw: st.DrawFn, value: Any) -> Any:
    """A copy in which one place, chosen at random, has another value, is gone, or has one more."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    queue = [value]
    while queue:
        inside = queue.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else ()
        places += [(inside, key) for key in keys]
        queue += [inside[key] for key in keys]
    if not places or draw(st.integers(0, 19)) == 0:
        return draw(VALUES)
    inside, key = draw(st.sampled_from(places))
    what = draw(st.sampled_from(["replace", "replace", "replace", "delete", "add"]))
    if what == "replace":
        inside[key] = draw(VALUES)
    elif what == "delete":
        del inside[key]
    elif isinstance(inside, dict):
        inside[draw(ODD)] = draw(VALUES)
    else:
        inside.append(draw(VALUES))
    return value


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("fuzzed")
    preprocessing = {
        **{"height": 32, "width": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        **{"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center"},
    }
    about = {"task": "classification", "model": {"name": "test_resnet", "pretrained": False}, "seed": 0, "scores": {}}
    model = timm.create_model("test_resnet", num_classes=3)
    write_plain(model, folder / "plain", ["a", "b", "c"], preprocessing, about)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["layer1.0.conv1"], unfreeze=["fc"]))
    vl.save_adapter(model, folder / "adapter", classes=["a", "b", "c"], preprocessing=preprocessing, extra=about)
    detector = {
        "name": "retinanet",
        "backbone": "test_resnet",
        "levels": [3, 4, 5],
        "fpn_channels": 16,
        "head_convs": 1,
    }
    segmenter = {"name": "fpn", "backbone": "test_resnet", "channels": 16}
    for task, section in (("detection", detector), ("segmentation", segmenter)):
        config = check_config({"task": task, "model": {**section, "size": 64, "pretrained": False}})
        built = task_of(task).build(config.model, ["a", "b", "c"])
        shown = {"size": 64, **({} if task == "detection" else {"mean": [0.5] * 3, "std": [0.5] * 3})}
        more = {"task": task, "model": config.model.model_dump(mode="json")}
        write_plain(built.model, folder / task, ["a", "b", "c"], shown, {**about, **more})
    for task in TASKS:
        task_of(task)
    names = ("plain", "adapter", "detection", "segmentation")
    for name in names:
        load_trained(folder / name)  # imports what is imported late
    return {name: folder / name for name in names}


@pytest.fixture(scope="module", autouse=True)
def _memory(files: dict[str, Path]) -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No network, no process, no module of anybody else's."""
    for place in ("socket.getaddrinfo", "socket.socket.connect", "subprocess.Popen", "os.system"):
        monkeypatch.setattr(place, lambda *_args, place=place, **_options: pytest.fail(place))
    before = set(sys.modules)
    yield
    ours = (
        "hypothesis",
        "visionlora",
        "timm",
        "torch",
        "torchvision",
        "numpy",
        "safetensors",
        "pydantic",
        "encodings",
        "importlib",
    )
    assert {name.split(".")[0] for name in set(sys.modules) - before} <= set(ours)


def one_line(error: InputError, start: object = "") -> None:
    assert str(error).startswith(str(start))
    assert str(error) and "\n" not in str(error) and len(str(error)) < 2000


def load_changed(files: dict[str, Path], tmp_path: Path, kind: str, data: st.DataObject) -> None:
    fields = metadata_of(files[kind])
    name = data.draw(st.sampled_from(sorted(set(fields) - {"format_version", "visionlora"})))
    try:
        value = json.loads(fields[name])
    except ValueError:
        value = fields[name]
    text = json.dumps(changed(data.draw, value))
    if data.draw(st.integers(0, 9)) == 0:
        cut = data.draw(st.integers(0, len(text)))
        text = text[:cut] + data.draw(st.sampled_from(["", "[", "{", '"', "\\", "\0", "é"])) + text[cut + 1 :]
    path = rewrite(files[kind], tmp_path / "changed.safetensors", **{name: text})
    try:
        load_trained(path)
    except InputError as error:
        one_line(error)


@FUZZ
@given(st.data())
@pytest.mark.parametrize("kind", ["plain", "adapter"])
def test_a_changed_header(
    files: dict[str, Path], watched: None, tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    load_changed(files, tmp_path, kind, data)


@settings(FUZZ, max_examples=max(15, CASES // 10))
@given(st.data())
@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_a_changed_detector_or_segmenter(
    files: dict[str, Path], watched: None, tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    load_changed(files, tmp_path, kind, data)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, optimizer, scaler = trained_parts()
    folder = tmp_path_factory.mktemp("fuzzed_checkpoint")
    gone = {"index": 1, "epoch": 0, "files": ["a.png"], "reason": "a.png: no such file"}
    part = {"images": 3, "paths": "0" * 64, "labels": "0" * 64}
    data = {"classes": ["a", "b"], "train": part, "val": part}
    save_checkpoint(folder, Progress(best=0.5, unreadable=[gone]), model, optimizer, scaler, "base", data)
    return checkpoints(folder)[0]


def trained_parts() -> tuple[torch.nn.Module, torch.optim.Optimizer, "torch.amp.GradScaler"]:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, optimizer, torch.amp.GradScaler("cpu", enabled=True)


@settings(FUZZ, max_examples=max(50, CASES if CASES > 150 else 0))
@given(st.data())
def test_a_changed_checkpoint(checkpoint: Path, watched: None, tmp_path: Path, data: st.DataObject) -> None:
    """With a manifest that fits it."""
    folder = tmp_path / checkpoint.name
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    state = json.loads((checkpoint / "state.json").read_text())
    often = data.draw(st.sampled_from([("python_random", "numpy_random"), ()]))  # of their 1249 numbers
    kept = {key: state.pop(key) for key in often}
    state = changed(data.draw, state)
    state = {**state, **kept} if isinstance(state, dict) else state
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "manifest.json").write_text(_manifest(folder))
    python, numpy = random.getstate(), np.random.get_state()
    try:
        found = read_checkpoint(folder)
        same = found.description["data"] if isinstance(found.description.get("data"), dict) else None
        load_checkpoint(found, *trained_parts(), found.description["base"], same)
    except InputError as error:
        one_line(error, folder)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def configs() -> list[dict[str, Any]]:
    texts = [
        dump_config(check_config({"task": task, "model": {"name": "test_vit"}})) for task in TASKS if task in SHIPPED
    ]
    return [yaml.safe_load(text) for text in texts]


SHIPPED = ("classification", "detection", "segmentation")
CONFIGS = configs()


@FUZZ
@given(st.data())
def test_a_changed_config(watched: None, tmp_path: Path, data: st.DataObject) -> None:
    values = changed(data.draw, data.draw(st.sampled_from(CONFIGS)))
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(values).encode("utf-8", "replace").decode())
    try:
        load_config(path)
    except InputError as error:
        one_line(error, path)


SIGNS = """
a b:\\s -\\s \\n \\s\\s [ ] { } , :\\s ?\\s !!int\\s !!map\\s !x\\s &a\\s *a <<:\\s ' " | > # % ---\\n ...\\n \\t é ~
null 0x 1e5 = \\x names:\\s train:\\s classes:\\s values:\\s ignore:\\s path:\\s nc:\\s model:\\s name kpt_shape:\\s"""
YAML = st.lists(
    st.sampled_from([sign.replace("\\s", " ").replace("\\n", "\n").replace("\\t", "\t") for sign in SIGNS.split()]),
    max_size=14,
).map("".join)


@settings(FUZZ, max_examples=2 * CASES)
@given(YAML)
def test_yaml_at_random(watched: None, tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(text)
    for read in (load_config, read_class_map, lambda path: load_yolo_yaml(path, None, [])):
        try:
            read(path)  # type: ignore[operator]
        except InputError as error:
            one_line(error)


@FUZZ
@given(st.sampled_from(["train.lr", "model", "a.b", "", "lora.targets", "data.train", "train.", "."]), YAML | ODD)
def test_an_override_at_random(watched: None, key: str, text: str) -> None:
    try:
        check_config(parse_overrides({"model": {"name": "test_vit"}}, [f"{key}={text}"]))
    except InputError as error:
        one_line(error)
