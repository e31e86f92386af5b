"""``train.compile``: the same steps to rounding, and the same names in files."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import visionlora as vl
from helpers.runs import make_config, make_images
from visionlora.config import check_config
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.tasks.trained import ADAPTER
from visionlora.training.compiling import compile_steps
from visionlora.training.run import train


def with_mode(config: RunConfig, mode: str) -> RunConfig:
    return check_config({**config.model_dump(mode="json"), "train": {**config.train.model_dump(), "compile": mode}})


def test_a_run_is_compiled_once_and_its_file_is_the_plain_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images(tmp_path / "images", train=2, val=2)
    train(make_config(images, tmp_path / "plain", epochs=1), quiet=True)
    calls: list[str] = []

    def compiled(called: Any, mode: str) -> Any:
        def run(*args: Any, **given: Any) -> Any:
            calls.append(mode)
            return called(*args, **given)

        return run

    monkeypatch.setattr("torch.compile", compiled)
    result = train(with_mode(make_config(images, tmp_path / "run", epochs=1), "default"), quiet=True)
    assert calls == ["default", "default"]  # 6 images in batches of 4; evaluations run another model
    expected, found = (load_file(tmp_path / name / ADAPTER) for name in ("plain", "run"))
    assert found.keys() == expected.keys() and result.scores["loss"] > 0
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_step_through_torch_compile_has_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile
    monkeypatch.setattr("torch.compile", lambda called, mode: real(called, backend="eager"))
    torch.compiler.reset()
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    images = torch.randn(2, 3, 8, 8)
    vl.attach(plain, vl.LoRAConfig(rank=2))
    vl.fold_batchnorm(plain, images)
    model = copy.deepcopy(plain)
    compile_steps(model, "classification", with_mode(make_config(Path(), Path()), "default").train)
    for each in (plain, model):
        each.train()(images).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    assert sum(grad is not None for grad in expected.values()) == 4
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_of_a_detector_the_backbone_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.compile", lambda called, mode: called)
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    compile_steps(model, "detection", with_mode(make_config(Path(), Path()), "max-autotune").train)
    assert model["backbone"]._compiled_call_impl is not None and model["head"]._compiled_call_impl is None
    assert list(model.state_dict()) == ["backbone.weight", "backbone.bias", "head.weight", "head.bias"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_graphs_need_a_gpu(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", train=2, val=2)
    with pytest.raises(InputError, match="records CUDA graphs, and the device is cpu; give train.compile=default"):
        train(with_mode(make_config(images, tmp_path / "run"), "reduce-overhead"), quiet=True)
    assert not (tmp_path / "run").exists()
