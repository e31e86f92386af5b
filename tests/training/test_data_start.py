"""``lora.init=eva`` in a run: factors from the training images, the same on resume, ranks in the config."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import visionlora as vl
from helpers.runs import make_config, make_images
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import ADAPTER
from visionlora.training.auto_rank import first_batches
from visionlora.training.data_start import start_adapter
from visionlora.training.folder import settings_before
from visionlora.training.run import prepare, train


def eva(config: RunConfig, **lora: object) -> RunConfig:
    return config.model_copy(update={"lora": replace(config.lora, init="eva", **lora)})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images", train=4, val=2)


def test_factors_are_those_of_start_from_data(images: Path, tmp_path: Path) -> None:
    config = eva(make_config(images, tmp_path / "run"))
    started, expected = (task_of(config.task).set_up(config) for _ in range(2))
    prepare(config, started)
    found = start_adapter(config, started, torch.device("cpu"), print)
    prepare(config, expected)
    model = expected.built.model
    vl.start_from_data(model, [batch["image"] for batch in first_batches(expected.training)])
    state = started.built.model.state_dict()
    assert any(name.endswith("lora_A") for name in state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert len(set(found.lora.rank_pattern.values())) > 2


def test_ranks_stand_in_the_config_and_make_the_same_run(images: Path, tmp_path: Path) -> None:
    whole, again, stopped = (tmp_path / name for name in ("whole", "again", "stopped"))
    train(eva(make_config(images, whole, epochs=2)), quiet=True)
    lora = settings_before(whole).lora
    layers = vl.read_header(whole / ADAPTER).layers
    assert {key.removesuffix(".weight"): layer["rank"] for key, layer in layers.items()} == lora.rank_pattern
    train(settings_before(whole).model_copy(update={"out": again}), quiet=True)
    train(eva(make_config(images, stopped, epochs=1)), quiet=True)
    train(eva(make_config(images, stopped, epochs=2)), resume=True, quiet=True)
    assert settings_before(stopped).lora == lora
    tensors = load_file(whole / ADAPTER)
    for name, tensor in load_file(again / ADAPTER).items():
        assert torch.equal(tensor, tensors[name]), name


def test_what_can_not_start_so_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not start at random; attach a LoRA"):
        train(eva(make_config(images, tmp_path / "run"), method="lokr"), quiet=True)
    with pytest.raises(InputError, match="both spread ranks"):
        vl.LoRAConfig(rank="auto", budget="1MB", init="eva")
    with pytest.raises(InputError, match="starts from images; attach with another, then call start_from_data"):
        vl.attach(torch.nn.Sequential(torch.nn.Linear(4, 4)), vl.LoRAConfig(rank=1, init="eva"))
    assert not (tmp_path / "run").exists()
